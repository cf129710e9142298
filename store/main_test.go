package store_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// children are what this test binary does when a test has started it anew, to
// be killed, or to live where the disk is small or failing.
var children = map[string]func(args []string) error{
	"write":   writeUntilKilled,
	"full":    fillTheDisk,
	"failing": failTheDisk,
}

const childVariable = "STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if f := children[os.Getenv(childVariable)]; f != nil {
		if err := f(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	return cmd
}
