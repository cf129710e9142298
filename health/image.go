package health

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"

	"cove.example/cove/oci"
	"cove.example/cove/reason"
)

var manifestTypes = strings.Join([]string{
	"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
}, ", ")

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	Platform  struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	} `json:"platform"`
	URLs []string `json:"urls"`
}

type image struct {
	Manifests []descriptor `json:"manifests"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
	chosen    bool         // of an index, for its platform
}

// manifest reads the image's manifest: of an index, the platform's.
func (a *asker) manifest(ctx context.Context, t token) (image, Result) {
	var m image
	r := a.c.timed(ctx, LayerManifest, a.c.name(), func(ctx context.Context, r *Result) {
		ref, platform := a.c.Target.Reference, ""
		for range 2 {
			x, _, err := a.follow(ctx, http.MethodGet, a.base+"/v2/"+a.c.Target.Repository+"/manifests/"+ref, a.headers(t, manifestTypes), maxAnswer)
			if err != nil {
				r.broken(err)
				return
			}
			if x.status != http.StatusOK {
				a.refused(r, x, reason.TokenLacks)
				if r.Code == reason.ImageUnknown {
					if near := a.nearest(ctx); near != "" {
						r.Evidence = append(r.Evidence, "nearest that may be pulled: "+near)
						r.Fix = "ask for " + a.c.Target.Host + "/" + near
					}
				}
				return
			}
			want := x.header.Get("Docker-Content-Digest")
			if d, err := oci.ParseDigest(ref); err == nil {
				want = d.String()
			}
			if want != "" && !matches(want, x.body) {
				r.fail(reason.BytesWrong, "the manifest's bytes are not those of %s", want)
				return
			}
			m = image{chosen: platform != ""}
			if err := json.Unmarshal(x.body, &m); err != nil || len(m.Manifests) == 0 && m.Config.Digest == "" && len(m.Layers) == 0 {
				r.fail(reason.ProxyAnswers, "what came is no manifest")
				return
			}
			r.Said = fmt.Sprintf("read, %d bytes, %s%s", len(x.body), short(orUnknown(want)), platform)
			if len(m.Manifests) == 0 {
				return
			}
			want = a.platform()
			i := slices.IndexFunc(m.Manifests, func(d descriptor) bool { return d.platform() == want })
			if i < 0 {
				r.fail(reason.PlatformAbsent, "the image is not for %s", want)
				r.Evidence = append(r.Evidence, "it is for "+strings.Join(clip(platforms(m.Manifests), 8), ", "))
				return
			}
			ref, platform = m.Manifests[i].Digest, ", for "+want
			if _, err := oci.ParseDigest(ref); err != nil {
				r.fail(reason.ProxyAnswers, "what came is no index")
				return
			}
		}
		r.Outcome, r.Said = Unknown, "an index of indexes"
	})
	return m, r
}

// platform is the one whose manifest a pull here would take of an index.
func (a *asker) platform() string {
	if a.c.Target.Platform != "" {
		return a.c.Target.Platform
	}
	return "linux/" + runtime.GOARCH
}

func (d descriptor) platform() string { return d.Platform.OS + "/" + d.Platform.Architecture }

// platforms are those of an index. What has none, such as a signature, says so
// itself (source: BuildKit's attestations).
func platforms(list []descriptor) []string {
	var out []string
	for _, d := range list {
		if p := d.platform(); p != "/" && p != "unknown/unknown" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if out == nil {
		return []string{"no platform"}
	}
	return out
}

func (a *asker) headers(t token, accept string) http.Header {
	h := http.Header{}
	if t.header != "" {
		h.Set("Authorization", t.header)
	}
	if accept != "" {
		h.Set("Accept", accept)
	}
	return h
}

// matches reports whether bytes have a digest.
func matches(digest string, b []byte) bool {
	d, err := oci.ParseDigest(digest)
	if err != nil {
		return false
	}
	alg, sum, _ := strings.Cut(d.String(), ":")
	h, ok := oci.NewHash(alg)
	if !ok {
		return false
	}
	h.Write(b)
	return fmt.Sprintf("%x", h.Sum(nil)) == sum
}

// blobs asks for every part of the image, and reads the smallest layer by each
// way that there is.
func (a *asker) blobs(ctx context.Context, t token, m image) {
	all := slices.DeleteFunc(append(slices.Clone(m.Layers), m.Config), func(d descriptor) bool {
		_, err := oci.ParseDigest(d.Digest)
		return err != nil || len(d.URLs) > 0 // what has URLs comes from elsewhere
	})
	if len(all) == 0 {
		a.c.add(Result{Layer: LayerBlob, Subject: a.c.Target.Host, Outcome: Passed, Said: "the image has none"})
		return
	}
	layers := slices.DeleteFunc(slices.Clone(all), func(d descriptor) bool { return d.Digest == m.Config.Digest })
	if len(layers) == 0 {
		layers = all
	}
	least := slices.MinFunc(layers, func(x, y descriptor) int { return cmp.Compare(x.Size, y.Size) })
	var link *url.URL
	r := a.c.timed(ctx, LayerBlob, a.c.Target.Host, func(ctx context.Context, r *Result) {
		link = a.layer(ctx, r, a.base+"/v2/"+a.c.Target.Repository+"/blobs/"+least.Digest, t, least)
		if r.Outcome == Passed {
			a.others(ctx, r, t, slices.DeleteFunc(all, func(d descriptor) bool { return d.Digest == least.Digest }))
		}
		if r.Outcome == Passed && !m.chosen {
			a.fits(ctx, r, t, m.Config)
		}
	})
	if link == nil && r.Outcome != Failed {
		return // the registry has no need of data endpoints
	}
	var regions sync.WaitGroup
	defer regions.Wait()
	for _, host := range a.c.Target.DataHosts {
		switch {
		case link == nil || !slices.Contains(a.c.Target.DataHosts, link.Host):
			a.c.add(Result{Layer: LayerBlob, Subject: host, Outcome: NotReached, Said: "needs the registry's link to a layer"})
		case link.Host != host:
			// Clients elsewhere are sent there. The registry's link is good at
			// each of its data endpoints.
			regions.Go(func() {
				a.c.timed(ctx, LayerBlob, host, func(ctx context.Context, r *Result) {
					there := *link
					there.Host = host
					a.layer(ctx, r, there.String(), token{}, least)
				})
			})
		}
	}
}

// layer reads a blob, or the beginning of one that is large, and compares its
// digest. It returns the link to where the registry has sent us, nil where it
// answered itself.
func (a *asker) layer(ctx context.Context, r *Result, target string, t token, d descriptor) (link *url.URL) {
	header, limit := a.headers(t, ""), int64(maxLayer)
	whole := d.Size <= maxLayer
	if !whole {
		header.Set("Range", fmt.Sprintf("bytes=0-%d", maxPart-1))
		limit = maxPart
	}
	x, from, err := a.follow(ctx, http.MethodGet, target, header, limit)
	elsewhere := from != a.c.Target.Host
	if elsewhere {
		link = x.at
	}
	if err != nil {
		r.broken(err)
		if elsewhere && r.Code != reason.DataBlocked {
			r.Evidence = append(r.Evidence, string(r.Code)+": "+r.Said)
			r.fail(reason.DataBlocked, "the registry sends layers to %s, and %s", from, r.Said)
		}
		return link
	}
	switch {
	case x.status != http.StatusOK && x.status != http.StatusPartialContent:
		a.refused(r, x, reason.TokenLacks)
		if elsewhere {
			r.Evidence = append(r.Evidence, "answered by "+from)
		}
		return link
	case whole && !matches(d.Digest, x.body):
		r.fail(reason.BytesWrong, "the layer's bytes are not those of %s", d.Digest)
	case whole:
		r.Said = fmt.Sprintf("%s, %d bytes from %s", short(d.Digest), len(x.body), from)
	default:
		r.Said = fmt.Sprintf("%s, the first %d of %d bytes from %s", short(d.Digest), len(x.body), d.Size, from)
	}
	return link
}

// configs are the media types that say which platform an image is for (sources:
// the image specification, and docker's before it).
var configs = []string{"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}

// fits compares the platform of an image that is in no index. Engines differ
// there: containerd refuses an image for another platform, docker takes it and
// it does not run.
func (a *asker) fits(ctx context.Context, r *Result, t token, config descriptor) {
	if !slices.Contains(configs, config.MediaType) || config.Size > maxLayer {
		return
	}
	x, _, err := a.follow(ctx, http.MethodGet, a.base+"/v2/"+a.c.Target.Repository+"/blobs/"+config.Digest, a.headers(t, ""), maxLayer)
	switch {
	case err != nil:
		r.broken(err)
		return
	case x.status != http.StatusOK:
		a.refused(r, x, reason.TokenLacks)
		return
	case !matches(config.Digest, x.body):
		r.fail(reason.BytesWrong, "the config's bytes are not those of %s", config.Digest)
		return
	}
	var is struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	}
	if json.Unmarshal(x.body, &is) != nil || is.OS == "" || is.Architecture == "" {
		return
	}
	if got := is.OS + "/" + is.Architecture; got != a.platform() {
		r.Outcome, r.Code = Warned, reason.PlatformAbsent
		r.Evidence = append(r.Evidence, "it is for "+got+", and was asked for "+a.platform())
	}
}

// others asks whether the rest of the image is there, without reading it.
func (a *asker) others(ctx context.Context, r *Result, t token, rest []descriptor) {
	if len(rest) == 0 {
		return
	}
	asked := rest[:min(len(rest), maxBlobs)]
	answers := make([]answer, len(asked))
	failed := make([]error, len(asked))
	var all sync.WaitGroup
	slot := make(chan struct{}, maxAtOnce)
	for i, d := range asked {
		all.Go(func() {
			slot <- struct{}{}
			defer func() { <-slot }()
			answers[i], failed[i] = a.do(ctx, http.MethodHead, a.base+"/v2/"+a.c.Target.Repository+"/blobs/"+d.Digest, a.headers(t, ""), nil, 0)
		})
	}
	all.Wait()
	for i, d := range asked {
		switch status := answers[i].status; {
		case failed[i] != nil:
			said := r.Said
			r.broken(failed[i])
			r.Evidence = append(r.Evidence, "asked for "+short(d.Digest), "read before: "+said)
			return
		case status == http.StatusNotFound:
			r.fail(reason.LayerGone, "the manifest names %s, and it is not there", d.Digest)
			return
		case status >= 400:
			a.refused(r, answers[i], reason.TokenLacks)
			r.Evidence = append(r.Evidence, "asked for "+short(d.Digest))
			return
		}
	}
	more := "one is"
	if len(asked) > 1 {
		more = fmt.Sprintf("%d are", len(asked))
	}
	r.Said += "; the other " + more + " there"
	if n := len(rest) - len(asked); n > 0 {
		r.Outcome = Unknown
		r.Said += fmt.Sprintf(", but for %d that were not asked for", n)
	}
}

func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19] + "…"
	}
	return digest
}
