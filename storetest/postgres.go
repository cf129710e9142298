package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// Postgres returns the URL of a fresh, empty database, dropped when the test
// ends. The server is started by the first call in a test process, on a free
// port of the loopback interface, and goes when the process does.
//
// Its default collation is English and not that of bytes: a statement whose
// order depends on the collation is found by the tests, not by a user.
func Postgres(t testing.TB) string {
	t.Helper()
	s, err := shared[place(t)]()
	if err != nil {
		t.Fatalf("start a PostgreSQL for the test: %v", err)
	}
	name := fmt.Sprintf("test_%d", s.count.Add(1))
	// Copying files is quicker than writing them to the log, and nothing here
	// has to survive.
	if err := s.exec("CREATE DATABASE " + name + " STRATEGY FILE_COPY"); err != nil {
		t.Fatalf("create a database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := s.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return s.url(name)
}

type server struct {
	port     int
	password string
	count    atomic.Int64
}

// shared are the servers of this process, by where their data is.
var shared = map[string]func() (*server, error){
	"":     sync.OnceValues(func() (*server, error) { return start("") }),
	memory: sync.OnceValues(func() (*server, error) { return start(memory) }),
}

func (s *server) url(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (s *server) exec(q string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, q)
	return err
}

// owns fails unless the server at the port is the one of this data. Two
// processes may have been told of the same free port, and the password of all
// servers here is the same: without this, one process would use, and end with,
// the other's server.
func (s *server) owns(data string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	var at string
	if err := c.QueryRow(ctx, "SHOW data_directory").Scan(&at); err != nil {
		return err
	}
	if at != data {
		return fmt.Errorf("the port is another server's, of %s", at)
	}
	return nil
}

// programs finds the newest installed server. Debian keeps them off the PATH.
func programs() (dir string, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.SortFunc(found, func(a, b string) int { return major(a) - major(b) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(p), nil
	}
	return "", errors.New("there is none: install the package postgresql (apt-get install postgresql)")
}

func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// account is who PostgreSQL runs as: it refuses to be root.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func start(in string) (*server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	cred, err := account()
	if err != nil {
		return nil, err
	}
	// Not t.TempDir: the server outlives the test that happened to be first.
	dir, err := os.MkdirTemp(in, "cove-postgres-")
	if err != nil {
		return nil, err
	}
	s := &server{}
	data := filepath.Join(dir, "data")
	if s.password, err = initialized(bin, cred, data); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	if err := own(dir, cred); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	for range 5 { // the port may be taken between asking for it and using it
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.run(bin, dir, cred); err == nil {
			return s, nil
		}
	}
	_ = os.RemoveAll(dir)
	return nil, err
}

// watchdog starts the server and waits for its standard input to end, which
// it does when the test process ends, however it ends. Then it stops the
// server and removes its folder.
const watchdog = `
dir=$1; shift
"$@" >"$dir/log" 2>&1 </dev/null &
pid=$!
echo $pid
exec >/dev/null
while read -r _; do :; done
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$dir"
`

func (s *server) run(bin, dir string, cred *syscall.Credential) error {
	cmd := exec.Command("/bin/sh", "-c", watchdog, "watchdog", dir,
		filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"),
		"-c", "listen_addresses=127.0.0.1", "-c", "port="+strconv.Itoa(s.port), "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_wal_size=256MB",
		"-c", "max_connections=200", "-c", "jit=off", "-c", "autovacuum=off", "-c", "logging_collector=off")
	cmd.Dir = "/"
	// A session of its own: an interrupt from the terminal must not end the
	// watchdog before its work.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: cred}
	// The write end stays open, and in this process only, until it ends.
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := io.ReadAll(io.LimitReader(out, 32))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil {
		return fmt.Errorf("the watchdog said %q", line)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); ; <-tick.C {
		err := s.owns(filepath.Join(dir, "data"))
		if err == nil {
			go func() { _ = cmd.Wait() }()
			return nil
		}
		if time.Now().After(deadline) || errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			_ = unix.Kill(pid, unix.SIGQUIT)
			_ = cmd.Process.Kill() // before it removes the folder: there may be another try
			_ = in.Close()
			_ = cmd.Wait()
			return fmt.Errorf("%w\n%s", err, text)
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// initialized fills data with a fresh cluster and returns the password of its
// superuser. Making one takes seconds, so a copy is kept in the user's cache;
// the password is there because loopback is open to every user of the machine.
func initialized(bin string, cred *syscall.Credential, data string) (password string, err error) {
	version, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", err
	}
	args := []string{
		"--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--wal-segsize=1",
		"--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8",
	}
	if major(filepath.Join(bin, "postgres")) < 15 {
		args = args[:5]
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	key := sha256.Sum256(fmt.Append(nil, string(version), args))
	kept := filepath.Join(cache, "cove-test", fmt.Sprintf("postgres-%x", key[:8]))
	if password, err := os.ReadFile(filepath.Join(kept, "password")); err == nil {
		return string(password), os.CopyFS(data, os.DirFS(filepath.Join(kept, "data")))
	}

	dir := filepath.Dir(data)
	password = rand.Text()
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return "", err
	}
	if err := own(dir, cred); err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), append(args, "--pwfile="+secret, "--pgdata="+data)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w\n%s", err, out)
	}
	// Two processes may do this at once: the first to rename wins, and for the
	// other its own cluster is as good.
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return "", err
	}
	made, err := os.MkdirTemp(filepath.Dir(kept), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(made)
	if err := os.CopyFS(filepath.Join(made, "data"), os.DirFS(data)); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(made, "password"), []byte(password), 0o600); err != nil {
		return "", err
	}
	if err := os.Rename(made, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return password, nil
}

// own makes dir private, as PostgreSQL demands (copying has given what the
// umask allows), and the server's.
func own(dir string, cred *syscall.Credential) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		if err == nil && cred != nil {
			err = os.Lchown(path, int(cred.Uid), int(cred.Gid))
		}
		return err
	})
}
