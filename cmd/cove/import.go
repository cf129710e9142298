package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"cove.example/cove/client"
)

// maxPassword bounds what is read as a password.
const maxPassword = 16 << 10

func (a *app) importCommand() *cobra.Command {
	var source, user, password string
	var images, repositories []string
	var force, stdin bool
	c := &cobra.Command{
		Use: "import NAME", Short: "Copy an image from another registry", Args: cobra.ExactArgs(1),
		Long: `Copy an image, with all its platforms, from another registry or from another
registry of this deployment. The server fetches it; nothing passes through this
machine. Without --image and --repository it keeps its name.`,
		Example: "  cove registry import myregistry --source docker.io/library/alpine:3.20\n" +
			"  cove registry import myregistry --source registry.example.com/team/app@sha256:… --image app:1.4 -u me --password-stdin <secret",
		RunE: func(cmd *cobra.Command, args []string) error {
			host, image, ok := strings.Cut(source, "/")
			if !ok || !strings.ContainsAny(host, ".:") {
				return usagef("--source %q: expected HOST/REPOSITORY[:TAG|@DIGEST], such as docker.io/library/alpine:3.20", source)
			}
			if stdin {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxPassword))
				if err != nil {
					return err
				}
				password = strings.TrimRight(string(text), "\r\n")
			}
			from := client.Object{"registryUri": host, "sourceImage": image}
			if password != "" {
				from["credentials"] = client.Object{"username": user, "password": password}
			} else if user != "" {
				return usagef("-u needs -p or --password-stdin")
			}
			body := client.Object{"source": from, "mode": "NoForce"}
			if force {
				body["mode"] = "Force"
			}
			if len(images) > 0 {
				body["targetTags"] = images
			}
			if len(repositories) > 0 {
				body["untaggedTargetRepositories"] = repositories
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.find(cmd.Context(), cl, typeRegistry, args[0])
			if err != nil {
				return err
			}
			show := a.progress(source)
			defer show.end()
			out, err := cl.Run(cmd.Context(), id+"/importImage", body, show.at)
			if err != nil {
				return err
			}
			show.end()
			if out == nil {
				out = client.Object{}
			}
			return a.print.show(out, column{"DIGEST", "digest"}, column{"MANIFESTS", "manifests"}, column{"BLOBS", "blobs"}, column{"BYTES", "bytes"})
		},
	}
	fs := c.Flags()
	fs.StringVar(&source, "source", "", "HOST/REPOSITORY[:TAG|@DIGEST]")
	fs.StringArrayVarP(&images, "image", "t", nil, "REPOSITORY:TAG that the image gets here; may be given more than once")
	fs.StringArrayVar(&repositories, "repository", nil, "REPOSITORY that gets the image without a tag; may be given more than once")
	fs.BoolVar(&force, "force", false, "let tags that exist mean this image from now on")
	fs.StringVarP(&user, "username", "u", "", "user name for the source")
	fs.StringVarP(&password, "password", "p", "", "password for the source; other users of this machine may see it, --password-stdin hides it")
	fs.BoolVar(&stdin, "password-stdin", false, "read the password for the source from standard input")
	if err := c.MarkFlagRequired("source"); err != nil {
		panic(err)
	}
	return c
}

// progress tells how far an operation has come: a bar on a terminal, a line
// for each step of ten percent elsewhere.
type progress struct {
	say   func(format string, args ...any)
	what  string
	pool  *mpb.Progress
	bar   *mpb.Bar
	tenth int64
	ended bool
}

func (a *app) progress(what string) *progress {
	p := &progress{say: a.note, what: what, tenth: -1}
	if f, ok := a.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.pool = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
		p.bar = p.pool.AddBar(100, mpb.PrependDecorators(decor.Name(clean(what))), mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace)))
	}
	return p
}

func (p *progress) at(operation client.Object) {
	n, _ := operation["percentComplete"].(json.Number)
	percent, err := n.Int64()
	if err != nil {
		return
	}
	if p.bar != nil {
		p.bar.SetCurrent(percent)
		return
	}
	if tenth := percent / 10; tenth > p.tenth {
		p.tenth = tenth
		p.say("%s", clean(fmt.Sprintf("%s: %d %%%s", p.what, percent, bytesOf(operation))))
	}
}

func bytesOf(operation client.Object) string {
	of, done := dig(operation, "properties", "bytes"), dig(operation, "properties", "bytesCopied")
	if of == nil {
		return ""
	}
	return fmt.Sprintf(", %v of %v bytes", done, of)
}

// end leaves the terminal as it was found.
func (p *progress) end() {
	if p.bar == nil || p.ended {
		return
	}
	p.ended = true
	if !p.bar.Completed() {
		p.bar.Abort(false)
	}
	p.pool.Wait()
}
