package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"cove.example/cove/fault"
)

func TestDescribeTellsTheCallerThePublicSentenceOnly(t *testing.T) {
	taken := fault.Coded(fault.Conflict, "AlreadyInUse", "the name is in use")
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("pq: relation /var/lib/x does not exist"), `{"error":{"code":"InternalServerError","message":"internal error"}}`},
		{fmt.Errorf("put harbor: %w", taken), `{"error":{"code":"AlreadyInUse","message":"the name is in use"}}`},
		{taken.Because(errors.New("SELECT 1")), `{"error":{"code":"AlreadyInUse","message":"the name is in use"}}`},
		{fault.Newf(fault.Throttled, "later"), `{"error":{"code":"TooManyRequests","message":"later"}}`},
		{
			fault.Problems([]fault.Field{{Path: "sku.name", Message: "is required"}}),
			`{"error":{"code":"InvalidRequestContent","message":"sku.name: is required","target":"sku.name","details":[{"code":"InvalidParameter","message":"is required","target":"sku.name"}]}}`,
		},
		{
			fault.Problems([]fault.Field{{Path: "a", Message: "x"}, {Path: "b", Message: "y"}}),
			`{"error":{"code":"InvalidRequestContent","message":"a: x (and 1 more)","details":[{"code":"InvalidParameter","message":"x","target":"a"},{"code":"InvalidParameter","message":"y","target":"b"}]}}`,
		},
	} {
		got, err := json.Marshal(Describe(c.err))
		if err != nil || string(got) != c.want {
			t.Errorf("%v:\n got %s\nwant %s", c.err, got, c.want)
		}
	}
}

func TestEveryKindOfFailureHasACode(t *testing.T) {
	for k := fault.Internal; k <= fault.Unsupported; k++ {
		if Describe(fault.New(k, "x")).Error.Code == "" {
			t.Errorf("kind %d has no code", k)
		}
	}
}

// Clients are older and newer than any list: every plausible date will do.
func TestParseVersion(t *testing.T) {
	for _, s := range []string{"2015-01-01", "2019-06-01-preview", "2022-02-01-preview", "2025-11-01", "2031-12-31", "2025-03-01-PREVIEW"} {
		if v, err := ParseVersion(s); err != nil || v.String() != s {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := ParseVersion(""); !errors.Is(err, ErrNoVersion) {
		t.Errorf("a missing version: %v", err)
	}
	for _, s := range []string{"2025", "2025-13-01", "2025-02-30", "2025-1-1", "latest", "2025-01-01preview", "2025-01-01-", "2025-01-01-preview-x", "1999-01-01", "2025-01-01 ", "2025-01-01/../x"} {
		if _, err := ParseVersion(s); !errors.Is(err, ErrBadVersion) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
