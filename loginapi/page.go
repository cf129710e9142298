package loginapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
)

//go:embed device.html
var deviceHTML string

var deviceTemplate = template.Must(template.New("device").Parse(deviceHTML))

// style is the page's own, named to the browser by its hash: no other is used.
const style = `body{font:16px/1.5 sans-serif;max-width:26rem;margin:3rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
label,input,button{display:block;width:100%;box-sizing:border-box}
input{font:inherit;padding:.5rem;margin:.2rem 0 1rem}
button{font:inherit;padding:.5rem;margin:.5rem 0}
.error{border-left:4px solid #b00020;padding-left:.8rem}
dt{font-weight:bold}dd{margin:0 0 .6rem;overflow-wrap:anywhere}`

// pagePolicy allows the page its style and its form, no script, and nobody to
// show it inside another page, where a person would not see what is clicked.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
}()

// page is what a person sees. The template escapes every field.
type page struct {
	Form     string // see formCookie
	Code     string // "" asks for it
	Client   string
	From     string
	Audience string
	Error    string
	Done     string
	ID       string // correlation id, of an error

	fresh bool // the browser does not have the cookie yet
}

// Style is what the policy's hash is of.
func (p *page) Style() template.CSS { return style }

func (p *page) send(w http.ResponseWriter, status int) {
	var b bytes.Buffer
	if err := deviceTemplate.Execute(&b, p); err != nil {
		panic(fmt.Sprintf("loginapi: the page: %v", err)) // only texts come into it
	}
	h := w.Header()
	for name, value := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": pagePolicy, "X-Frame-Options": "DENY",
		// Browsers name the origin of a form only to a page that may know it.
		"Referrer-Policy":            "same-origin",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		"Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
	} {
		h.Set(name, value)
	}
	if p.fresh {
		http.SetCookie(w, &http.Cookie{Name: formCookie, Value: p.Form, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a caller who has gone needs no answer
}
