package condition

import (
	"slices"
	"testing"
	"time"
)

// Why a condition is not true is said by the comparisons that would have to
// come out otherwise, with what the request has and by how far it is off.
func TestMisses(t *testing.T) {
	const read = "Microsoft.ContainerRegistry/registries/repositories/content/read"
	name := "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"
	guard := "(!(ActionMatches{'" + read + "'}))"
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		text string
		want []Miss
	}{
		{"(" + guard + " OR (" + name + " StringStartsWith 'team-b/'))", []Miss{{Part: name + " StringStartsWith 'team-b/'", Has: "team-a/api"}}},
		{"(" + guard + " OR (" + name + " StringStartsWith 'team-a/'))", nil},
		{
			"(" + guard + " OR (" + name + "   StringEquals 'team-a/api' AND @Environment[UtcNow] DateTimeLessThan '2026-11-21T06:55:00.0Z'))",
			[]Miss{{Part: "@Environment[UtcNow] DateTimeLessThan '2026-11-21T06:55:00.0Z'", Has: "2026-11-21T09:00:00Z", By: "2h5m0s"}},
		},
		{
			"@Environment[UtcNow] DateTimeGreaterThan '9999-12-31T23:59:59Z'", // too far off to say by how much
			[]Miss{{Part: "@Environment[UtcNow] DateTimeGreaterThan '9999-12-31T23:59:59Z'", Has: "2026-11-21T09:00:00Z"}},
		},
		{"!(" + name + " StringLike '*/api')", []Miss{{Part: name + " StringLike '*/api'", True: true, Has: "team-a/api"}}},
		{
			"@Environment[isPrivateLink] BoolEquals true OR @Environment[Microsoft.Network/virtualNetworks/subnets] StringEquals '/x'",
			[]Miss{{Part: "@Environment[isPrivateLink] BoolEquals true", Has: "false"}, {Part: "@Environment[Microsoft.Network/virtualNetworks/subnets] StringEquals '/x'"}},
		},
	} {
		cond, err := Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		r := &Request{Action: read, Repository: "team-a/api", Now: at}
		if got := cond.Misses(r); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%+v, want\n%+v", c.text, got, c.want)
		}
		if holds := cond.Holds(r); holds != (c.want == nil) {
			t.Errorf("%s: true is %v", c.text, holds)
		}
	}
}
