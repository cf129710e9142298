package graphapi

import (
	"net/http"
	"strings"
)

// Routes are the routes that serve: "GET applications/*".
func Routes() (out []string) {
	for i := range routes {
		out = append(out, routes[i].name())
	}
	return out
}

// RouteOf is the route that serves a request, "" where none does.
func RouteOf(method, path string) string {
	segments, err := split("/v1.0" + path)
	if err != nil {
		return ""
	}
	r := find(&call{r: &http.Request{Method: method}}, segments)
	if r == nil {
		return ""
	}
	return r.name()
}

func (o *operation) name() string { return o.method + " " + strings.Join(o.path, "/") }
