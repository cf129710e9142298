// regload: tiny OCI registry load/seed client (stdlib only) for peer benchmarks.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	base   = flag.String("url", "http://127.0.0.1:5000", "registry base URL")
	auth   = flag.String("auth", "", "value of Authorization header")
	conc   = flag.Int("c", 4, "concurrency")
	n      = flag.Int("n", 100, "count")
	repo   = flag.String("repo", "bench/repo", "repository")
	file   = flag.String("file", "", "file")
	chunk  = flag.Int64("chunk", 64<<20, "chunk size")
	mode   = flag.String("mode", "mono", "push mode: mono|post1|stream|chunk")
	limit  = flag.Duration("limit", 120*time.Second, "time limit")
	size   = flag.Int64("size", 1<<30, "size")
	page   = flag.Int("page", 0, "page size")
	suffix = flag.String("suffix", "", "seed suffix")
)

var hc *http.Client

func req(method, u string, body io.Reader, clen int64, hdr map[string]string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, u, body)
	if err != nil {
		return nil, nil, err
	}
	if clen >= 0 {
		r.ContentLength = clen
	}
	if *auth != "" {
		r.Header.Set("Authorization", *auth)
	}
	for k, v := range hdr {
		r.Header.Set(k, v)
	}
	resp, err := hc.Do(r)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	return resp, b, err
}

func loc(resp *http.Response) string {
	l := resp.Header.Get("Location")
	u, err := url.Parse(l)
	if err != nil {
		return l
	}
	bu, _ := url.Parse(*base)
	return bu.ResolveReference(u).String()
}

func addq(u, k, v string) string {
	if strings.Contains(u, "?") {
		return u + "&" + k + "=" + url.QueryEscape(v)
	}
	return u + "?" + k + "=" + url.QueryEscape(v)
}

func dig(b []byte) string { s := sha256.Sum256(b); return "sha256:" + hex.EncodeToString(s[:]) }

func startUpload(repo string) (string, error) {
	resp, b, err := req("POST", *base+"/v2/"+repo+"/blobs/uploads/", nil, 0, nil)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != 202 {
		return "", fmt.Errorf("POST upload: %s %s", resp.Status, b)
	}
	return loc(resp), nil
}

func pushBlob(repo string, data []byte) error {
	l, err := startUpload(repo)
	if err != nil {
		return err
	}
	resp, b, err := req("PUT", addq(l, "digest", dig(data)), bytes.NewReader(data), int64(len(data)), map[string]string{"Content-Type": "application/octet-stream"})
	if err != nil {
		return err
	}
	if resp.StatusCode != 201 {
		return fmt.Errorf("PUT blob: %s %s", resp.Status, b)
	}
	return nil
}

func mountBlob(repo, d, from string) error {
	resp, b, err := req("POST", *base+"/v2/"+repo+"/blobs/uploads/?mount="+url.QueryEscape(d)+"&from="+url.QueryEscape(from), nil, 0, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode == 201 {
		return nil
	}
	return fmt.Errorf("mount: %s %s", resp.Status, b)
}

const mtImg = "application/vnd.oci.image.manifest.v1+json"

func putManifest(repo, ref string, m []byte) error {
	resp, b, err := req("PUT", *base+"/v2/"+repo+"/manifests/"+ref, bytes.NewReader(m), int64(len(m)), map[string]string{"Content-Type": mtImg})
	if err != nil {
		return err
	}
	if resp.StatusCode != 201 {
		return fmt.Errorf("PUT manifest: %s %s", resp.Status, b)
	}
	return nil
}

func desc(mt string, b []byte) map[string]any {
	return map[string]any{"mediaType": mt, "digest": dig(b), "size": len(b)}
}

func manifest(cfg []byte, layers [][]byte, note string) []byte {
	ls := []any{}
	for _, l := range layers {
		ls = append(ls, desc("application/vnd.oci.image.layer.v1.tar", l))
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": mtImg, "config": desc("application/vnd.oci.image.config.v1+json", cfg), "layers": ls}
	if note != "" {
		m["annotations"] = map[string]string{"note": note}
	}
	b, _ := json.Marshal(m)
	return b
}

var cfg = []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`)

func layer(seed string) []byte { return bytes.Repeat([]byte("layer-"+seed+"-"), 64) }

func parallel(n, c int, limit time.Duration, f func(i int) error) (done int64, errs int64, dur time.Duration, lat []time.Duration) {
	var idx int64 = -1
	start := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var printed int64
	for w := 0; w < c; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				i := atomic.AddInt64(&idx, 1)
				if i >= int64(n) || time.Since(start) > limit {
					return
				}
				t := time.Now()
				if err := f(int(i)); err != nil {
					atomic.AddInt64(&errs, 1)
					if atomic.AddInt64(&printed, 1) <= 3 {
						fmt.Fprintln(os.Stderr, "err:", err)
					}
				} else {
					atomic.AddInt64(&done, 1)
				}
				mu.Lock()
				lat = append(lat, time.Since(t))
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return done, errs, time.Since(start), lat
}

func pct(l []time.Duration, p float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	s := append([]time.Duration(nil), l...)
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	k := int(p * float64(len(s)))
	if k >= len(s) {
		k = len(s) - 1
	}
	return s[k]
}

func report(what string, done, errs int64, dur time.Duration, lat []time.Duration) {
	fmt.Printf("%s done=%d errs=%d secs=%.2f ops=%.1f/s p50=%.2fms p99=%.2fms max=%.2fms\n", what, done, errs, dur.Seconds(), float64(done)/dur.Seconds(),
		float64(pct(lat, .5).Microseconds())/1000, float64(pct(lat, .99).Microseconds())/1000, float64(pct(lat, 1).Microseconds())/1000)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL", err)
		os.Exit(1)
	}
}

func seedBase(repo string) ([]byte, error) {
	l := layer("base")
	if err := pushBlob(repo, cfg); err != nil {
		return nil, err
	}
	if err := pushBlob(repo, l); err != nil {
		return nil, err
	}
	return manifest(cfg, [][]byte{l}, ""), nil
}

func main() {
	if len(os.Args) < 2 {
		fmt.Println("usage: regload CMD [flags]; CMD = one|tags|repos|images|push|listtags|catalog|genfile|sha|delmanifests|uploads|serve")
		return
	}
	cmd := os.Args[1]
	flag.CommandLine.Parse(os.Args[2:])
	hc = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 256, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true,
		WriteBufferSize: 1 << 20, ReadBufferSize: 1 << 18,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}}
	switch cmd {
	case "one": // push one tiny image, print digest
		m, err := seedBase(*repo)
		fatal(err)
		fatal(putManifest(*repo, "latest", m))
		fmt.Println(dig(m), dig(cfg), dig(layer("base")))
	case "tags": // n tags on one repo, distinct manifests every 10th
		l := layer("base")
		_, err := seedBase(*repo)
		fatal(err)
		d, e, dur, lat := parallel(*n, *conc, *limit, func(i int) error {
			m := manifest(cfg, [][]byte{l}, fmt.Sprintf("m%d", i/10))
			return putManifest(*repo, fmt.Sprintf("t%05d", i), m)
		})
		report("seed-tags", d, e, dur, lat)
	case "repos":
		m, err := seedBase(*repo + "/src")
		fatal(err)
		fatal(putManifest(*repo+"/src", "latest", m))
		l := layer("base")
		d, e, dur, lat := parallel(*n, *conc, *limit, func(i int) error {
			r := fmt.Sprintf("%s/r%05d", *repo, i)
			for _, b := range [][]byte{cfg, l} {
				if err := mountBlob(r, dig(b), *repo+"/src"); err != nil {
					if err := pushBlob(r, b); err != nil {
						return err
					}
				}
			}
			return putManifest(r, "latest", m)
		})
		report("seed-repos", d, e, dur, lat)
	case "images": // n distinct images (own layer+config) in repo, untagged later by delmanifests
		d, e, dur, lat := parallel(*n, *conc, *limit, func(i int) error {
			s := fmt.Sprintf("%s-%d", *suffix, i)
			l := layer(s)
			c := []byte(`{"architecture":"amd64","os":"linux","created_by":"` + s + `","rootfs":{"type":"layers","diff_ids":[]}}`)
			if err := pushBlob(*repo, c); err != nil {
				return err
			}
			if err := pushBlob(*repo, l); err != nil {
				return err
			}
			return putManifest(*repo, fmt.Sprintf("img%05d", i), manifest(c, [][]byte{l}, s))
		})
		report("push-images", d, e, dur, lat)
	case "delmanifests":
		d, e, dur, lat := parallel(*n, *conc, *limit, func(i int) error {
			s := fmt.Sprintf("%s-%d", *suffix, i)
			l := layer(s)
			c := []byte(`{"architecture":"amd64","os":"linux","created_by":"` + s + `","rootfs":{"type":"layers","diff_ids":[]}}`)
			m := manifest(c, [][]byte{l}, s)
			resp, b, err := req("DELETE", *base+"/v2/"+*repo+"/manifests/"+dig(m), nil, 0, nil)
			if err != nil {
				return err
			}
			if resp.StatusCode != 202 {
				return fmt.Errorf("DELETE %s %s", resp.Status, b)
			}
			return nil
		})
		report("delete-manifests", d, e, dur, lat)
	case "push":
		sha, err := os.ReadFile(*file + ".sha256")
		fatal(err)
		d := "sha256:" + strings.Fields(string(sha))[0]
		f, err := os.Open(*file)
		fatal(err)
		st, _ := f.Stat()
		t := time.Now()
		ct := map[string]string{"Content-Type": "application/octet-stream"}
		var resp *http.Response
		var b []byte
		switch *mode {
		case "post1":
			resp, b, err = req("POST", addq(*base+"/v2/"+*repo+"/blobs/uploads/", "digest", d), f, st.Size(), ct)
		case "mono":
			l, err2 := startUpload(*repo)
			fatal(err2)
			resp, b, err = req("PUT", addq(l, "digest", d), f, st.Size(), ct)
		case "stream": // docker style: one PATCH without length, then PUT
			l, err2 := startUpload(*repo)
			fatal(err2)
			resp, b, err = req("PATCH", l, struct{ io.Reader }{f}, -1, ct)
			fatal(err)
			if resp.StatusCode != 202 {
				fatal(fmt.Errorf("PATCH %s %s", resp.Status, b))
			}
			resp, b, err = req("PUT", addq(loc(resp), "digest", d), nil, 0, ct)
		case "chunk":
			l, err2 := startUpload(*repo)
			fatal(err2)
			for off := int64(0); off < st.Size(); off += *chunk {
				sz := min(*chunk, st.Size()-off)
				h := map[string]string{"Content-Type": "application/octet-stream", "Content-Range": fmt.Sprintf("%d-%d", off, off+sz-1)}
				resp, b, err = req("PATCH", l, io.NewSectionReader(f, off, sz), sz, h)
				fatal(err)
				if resp.StatusCode != 202 {
					fatal(fmt.Errorf("PATCH %s %s", resp.Status, b))
				}
				l = loc(resp)
			}
			resp, b, err = req("PUT", addq(l, "digest", d), nil, 0, ct)
		}
		fatal(err)
		if resp.StatusCode != 201 {
			fatal(fmt.Errorf("final %s %s", resp.Status, b))
		}
		el := time.Since(t).Seconds()
		fmt.Printf("push-%s size=%d secs=%.3f MBps=%.1f digest=%s\n", *mode, st.Size(), el, float64(st.Size())/1e6/el, d)
	case "listtags", "catalog":
		u := *base + "/v2/" + *repo + "/tags/list"
		if cmd == "catalog" {
			u = *base + "/v2/_catalog"
		}
		if *page > 0 {
			u = addq(u, "n", fmt.Sprint(*page))
		}
		total, pages := 0, 0
		t := time.Now()
		var lat []time.Duration
		for u != "" {
			pt := time.Now()
			resp, b, err := req("GET", u, nil, -1, nil)
			fatal(err)
			lat = append(lat, time.Since(pt))
			if resp.StatusCode != 200 {
				fatal(fmt.Errorf("%s %s", resp.Status, b))
			}
			var o struct {
				Tags         []string `json:"tags"`
				Repositories []string `json:"repositories"`
			}
			json.Unmarshal(b, &o)
			total += len(o.Tags) + len(o.Repositories)
			pages++
			u = ""
			if l := resp.Header.Get("Link"); l != "" && *page > 0 {
				if i, j := strings.Index(l, "<"), strings.Index(l, ">"); i >= 0 && j > i {
					bu, _ := url.Parse(*base)
					x, _ := url.Parse(l[i+1 : j])
					u = bu.ResolveReference(x).String()
				}
			}
			if time.Since(t) > *limit {
				fmt.Println("time limit reached")
				break
			}
		}
		fmt.Printf("%s page=%d entries=%d pages=%d secs=%.3f firstpage=%.2fms p50=%.2fms max=%.2fms\n", cmd, *page, total, pages, time.Since(t).Seconds(), float64(lat[0].Microseconds())/1000, float64(pct(lat, .5).Microseconds())/1000, float64(pct(lat, 1).Microseconds())/1000)
	case "genfile":
		f, err := os.Create(*file)
		fatal(err)
		h := sha256.New()
		buf := make([]byte, 1<<20)
		for left := *size; left > 0; {
			k := min(left, int64(len(buf)))
			rand.Read(buf[:k])
			f.Write(buf[:k])
			h.Write(buf[:k])
			left -= k
		}
		f.Close()
		fatal(os.WriteFile(*file+".sha256", []byte(hex.EncodeToString(h.Sum(nil))+"\n"), 0o644))
	case "sha":
		buf := make([]byte, 1<<20)
		rand.Read(buf)
		for _, sz := range []int{4 << 10, 32 << 10, 1 << 20} {
			h := sha256.New()
			t := time.Now()
			var nn int64
			var r0, r1 syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &r0)
			for time.Since(t) < 2*time.Second {
				for k := 0; k < 64; k++ {
					h.Write(buf[:sz])
					nn += int64(sz)
				}
			}
			syscall.Getrusage(syscall.RUSAGE_SELF, &r1)
			cpu := float64(r1.Utime.Nano()+r1.Stime.Nano()-r0.Utime.Nano()-r0.Stime.Nano()) / 1e9
			fmt.Printf("sha256 block=%d wall_MBps=%.0f per_cpu_second_MBps=%.0f\n", sz, float64(nn)/1e6/time.Since(t).Seconds(), float64(nn)/1e6/cpu)
		}
	case "fsync":
		// sequential write with final fsync, and many small file+fsync+rename+dirsync
		buf := make([]byte, 1<<20)
		rand.Read(buf)
		f, err := os.Create(*file)
		fatal(err)
		t := time.Now()
		for w := int64(0); w < *size; w += int64(len(buf)) {
			f.Write(buf)
		}
		t1 := time.Since(t)
		f.Sync()
		t2 := time.Since(t)
		f.Close()
		os.Remove(*file)
		fmt.Printf("write size=%d nofsync_MBps=%.0f fsync_MBps=%.0f\n", *size, float64(*size)/1e6/t1.Seconds(), float64(*size)/1e6/t2.Seconds())
		dir := *file + ".d"
		os.MkdirAll(dir, 0o755)
		var lat []time.Duration
		for i := 0; i < 200; i++ {
			t := time.Now()
			p := fmt.Sprintf("%s/f%d", dir, i)
			f, _ := os.Create(p + ".tmp")
			f.Write(buf[:1024])
			f.Sync()
			f.Close()
			os.Rename(p+".tmp", p)
			d, _ := os.Open(dir)
			d.Sync()
			d.Close()
			lat = append(lat, time.Since(t))
		}
		os.RemoveAll(dir)
		fmt.Printf("small-file create+fsync+rename+dirsync p50=%.2fms p99=%.2fms\n", float64(pct(lat, .5).Microseconds())/1000, float64(pct(lat, .99).Microseconds())/1000)
	case "serve": // trivial Go server: /v2/ tiny body, /f file via ServeContent (sendfile), /copy via 32K user copy
		small := []byte(`{}`)
		mb := bytes.Repeat([]byte("x"), 700)
		http.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) { w.Write(small) })
		http.HandleFunc("/m", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mtImg)
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("a", 64))
			w.Header().Set("Content-Length", "700")
			w.Write(mb)
		})
		http.HandleFunc("/f", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, *file) })
		http.HandleFunc("/copy", func(w http.ResponseWriter, r *http.Request) {
			f, _ := os.Open(*file)
			defer f.Close()
			io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{f})
		})
		http.HandleFunc("/sink", func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
		http.HandleFunc("/sinkhash", func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r.Body}, make([]byte, 1<<20))
		})
		http.HandleFunc("/sinkfile", func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			p := *file + ".sink"
			f, _ := os.Create(p)
			buf := make([]byte, 1<<20)
			io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, h)}, struct{ io.Reader }{r.Body}, buf)
			if r.URL.Query().Get("sync") != "" {
				f.Sync()
			}
			f.Close()
			os.Remove(p)
		})
		fatal(http.ListenAndServe(strings.TrimPrefix(*base, "http://"), nil))
	default:
		fmt.Println("unknown", cmd)
	}
}
