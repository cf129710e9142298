package insight

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"cove.example/cove/resource"
)

// The limits of a file sink that says none.
const (
	usualBytes = 64 << 20
	usualFiles = 8
)

// files are the files of sinks, one JSON object a line: NAME.jsonl, and when
// that is full NAME.1.jsonl, the newest of those that are. Several settings may
// send to one.
type files struct {
	mu   sync.Mutex
	open map[string]*file
}

type file struct {
	mu   sync.Mutex
	f    *os.File
	size int64
}

// write adds records durably, and reports how many files were deleted to make
// room for them. Of a batch that fails, any part may be in the
// file; it is sent again.
func (s *files) write(dir *os.Root, sink resource.Doc, records []Record) (deleted int, err error) {
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	e.SetEscapeHTML(false)
	for _, r := range records {
		if err := e.Encode(r); err != nil {
			return 0, err
		}
	}
	name := sink.ID.Name()
	if !sinkName.MatchString(name) {
		return 0, fmt.Errorf("%q is no sink's name", name) // never: the type looks at it
	}
	f := s.of(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	deleted, err = f.write(dir, name, lines.Bytes(), number64(sink, "properties.maxBytes", usualBytes), int(number64(sink, "properties.files", usualFiles)))
	if err != nil && f.f != nil {
		// What could not be synced is not known to be there. It is written again,
		// and to another file: this one's pages may be lost and look written.
		_ = f.f.Close()
		f.f = nil
		n, failed := rotate(dir, name, int(number64(sink, "properties.files", usualFiles)))
		deleted, err = deleted+n, errors.Join(err, failed)
	}
	return deleted, err
}

func number64(doc resource.Doc, path string, otherwise int64) int64 {
	if n, ok := resource.Lookup(doc.Body, path).(json.Number); ok {
		if v, err := n.Int64(); err == nil {
			return v
		}
	}
	return otherwise
}

func (s *files) of(name string) *file {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]*file{}
	}
	if s.open[name] == nil {
		s.open[name] = &file{}
	}
	return s.open[name]
}

func (f *file) write(dir *os.Root, name string, lines []byte, most int64, keep int) (deleted int, err error) {
	if f.f != nil {
		// A file that somebody has moved or deleted is not written to.
		at, err := dir.Stat(name + ".jsonl")
		here, err2 := f.f.Stat()
		if err != nil || err2 != nil || !os.SameFile(at, here) {
			_ = f.f.Close()
			f.f = nil
		}
	}
	if f.f != nil && f.size > 0 && f.size+int64(len(lines)) > most {
		_ = f.f.Close()
		f.f = nil
		if deleted, err = rotate(dir, name, keep); err != nil {
			return deleted, err
		}
	}
	if f.f == nil {
		if err := f.begin(dir, name); err != nil {
			return deleted, err
		}
		if f.size > 0 && f.size+int64(len(lines)) > most {
			return f.write(dir, name, lines, most, keep)
		}
	}
	n, err := f.f.Write(lines)
	f.size += int64(n)
	if err != nil {
		return deleted, err
	}
	return deleted, f.f.Sync()
}

// begin opens the file. A line without an end is one that a crash has left;
// it was never said to be there, and is cut off.
func (f *file) begin(dir *os.Root, name string) error {
	opened, err := dir.OpenFile(name+".jsonl", os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := wholeLines(opened)
	if err == nil {
		err = opened.Truncate(size)
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		_ = opened.Close()
		return err
	}
	f.f, f.size = opened, size
	return nil
}

// wholeLines is where the last whole line ends.
func wholeLines(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	block := make([]byte, 64<<10)
	for end > 0 {
		from := max(0, end-int64(len(block)))
		b := block[:end-from]
		if _, err := f.ReadAt(b, from); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return from + int64(i) + 1, nil
		}
		end = from
	}
	return 0, nil
}

// rotate gives each file the next number, so that there are keep with the one
// that is begun next. Those above are deleted; it reports how many there were.
func rotate(dir *os.Root, name string, keep int) (deleted int, err error) {
	numbered := func(i int) string {
		if i == 0 {
			return name + ".jsonl"
		}
		return fmt.Sprintf("%s.%d.jsonl", name, i)
	}
	for i := mostFiles; i >= keep-1; i-- {
		switch err := dir.Remove(numbered(i)); {
		case err == nil:
			deleted++
		case !errors.Is(err, fs.ErrNotExist):
			return deleted, err
		}
	}
	for i := keep - 2; i >= 0; i-- {
		if err := dir.Rename(numbered(i), numbered(i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return deleted, err
		}
	}
	return deleted, syncFolder(dir)
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
