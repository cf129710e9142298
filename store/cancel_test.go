package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// Published failure 53: a question that is given up in the middle never has
// another's answer. A hundred principals read their own rows while half of the
// questions are cancelled at any moment of theirs.
func TestACancelledQuestionAnswersNobodyElse(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := store.NewIdentity(db)
		var people []directory.Object
		for i := range 100 {
			o := object(directory.User, fmt.Sprintf("person %d", i))
			o.UPN = fmt.Sprintf("person%d@cove.internal", i)
			if err := s.Add(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			people = append(people, o)
		}
		var mu sync.Mutex
		answered, given := 0, 0
		// On one processor a question is mostly over before its time is: then
		// they are asked again.
		for round := uint64(1); round <= 100 && (answered < 1000 || given < 100); round++ {
			var wg sync.WaitGroup
			for i, who := range people {
				wg.Go(func() {
					dice := rand.New(rand.NewPCG(round, uint64(i)))
					for n := range 40 {
						ctx, stop := context.WithCancel(t.Context())
						if n%2 == 0 {
							var late context.CancelFunc
							ctx, late = context.WithTimeout(ctx, time.Duration(dice.IntN(400))*time.Microsecond)
							defer late()
						}
						var got string
						var err error
						switch n % 4 {
						case 0, 1:
							var c directory.Client
							c, err = s.ByUPN(ctx, who.UPN)
							got = c.ObjectID
						default:
							var list []directory.Object
							list, err = s.ObjectsByID(ctx, []string{who.ObjectID})
							if err == nil && len(list) == 1 {
								got = list[0].ObjectID
							}
						}
						gone := n%2 == 0
						stop()
						mu.Lock()
						switch {
						case err == nil && got != who.ObjectID:
							t.Errorf("%s is answered with %q", who.ObjectID, got)
						case err == nil:
							answered++
						case gone:
							given++
						case errors.Is(err, directory.ErrUnknown):
							t.Errorf("%s is not there", who.UPN)
						default:
							t.Errorf("a question that nobody gave up: %v", err)
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
		}
		if answered < 1000 || given < 100 {
			t.Errorf("%d answered and %d given up: too few of one to mean anything", answered, given)
		}
	})
}
