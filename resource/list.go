package resource

import (
	"context"
	"encoding/base64"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
)

// ErrToken is the failure of a List whose continuation is not one that a List
// of the same scope has given.
var ErrToken = fault.Coded(fault.Invalid, "InvalidSkipToken", "the continuation token is not valid")

// Page sizes. A page holds at most MaxPage items and ends after maxScan
// documents even if few of them were wanted, so that no request costs more;
// its continuation says where to go on.
const (
	MaxPage = 1000
	maxScan = 10_000
)

// ListQuery is one page of a list.
type ListQuery struct {
	Scope arm.ID
	Type  string         // full type name, any case; "" is every resource that lies in a group itself
	Token string         // Page.Next of the page before
	Limit int            // 0 is MaxPage
	Below bool           // with Type "": everything below the scope, children included
	Want  func(Doc) bool // nil is all; a filter, and what the caller may see
	// Item is what is listed of a document; nil is the resource as Get shows
	// it.
	Item func(Doc) Object
}

// Page is a part of a list, in the order of the ids.
type Page struct {
	Items []Object
	Next  string // "" is the end
}

// List returns resources at or below a scope. The scope must exist.
func (s *Service) List(ctx context.Context, q ListQuery) (Page, error) {
	after, err := continuation(q.Scope, q.Token)
	if err != nil {
		return Page{}, err
	}
	var only *Type
	if q.Type != "" {
		if only = s.types[strings.ToLower(q.Type)]; only == nil {
			return Page{}, ErrTypeUnknown.Detail("The resource type %q could not be found: it is not in this version.", clip(q.Type))
		}
	}
	limit := q.Limit
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	var page Page
	err = s.store.View(ctx, func(r Reader) error {
		page = Page{Items: []Object{}}
		limit := limit
		if !q.Scope.IsZero() {
			if _, err := s.read(ctx, r, q.Scope); err != nil {
				return err
			}
		}
		if only != nil && after == "" {
			fixed, err := s.fixedBelow(ctx, r, only, q.Scope)
			if err != nil {
				return err
			}
			for _, doc := range fixed { // a handful; they come on top of a page's size
				if q.Want != nil && !q.Want(doc) {
					continue
				}
				one, err := s.show(ctx, r, only, doc)
				if err != nil {
					return err
				}
				page.Items = append(page.Items, one.Body)
			}
			limit += len(page.Items)
		}
		for scanned, at := 0, after; ; {
			docs, err := r.List(ctx, Query{Type: q.Type, Under: q.Scope, After: at, Limit: limit + 1})
			if err != nil {
				return err
			}
			for _, doc := range docs {
				if len(page.Items) == limit || scanned == maxScan {
					page.Next = base64.RawURLEncoding.EncodeToString([]byte(at))
					return nil
				}
				scanned++
				at = doc.ID.Key()
				t := only
				if t == nil {
					if t = s.types[strings.ToLower(doc.ID.Type())]; t == nil || !q.Below && !independent(t, doc.ID) {
						continue
					}
				}
				if q.Want != nil && !q.Want(doc) {
					continue
				}
				if q.Item != nil {
					page.Items = append(page.Items, q.Item(doc))
					continue
				}
				one, err := s.show(ctx, r, t, doc)
				if err != nil {
					return err
				}
				page.Items = append(page.Items, one.Body)
			}
			if len(docs) <= limit {
				return nil
			}
		}
	})
	return page, err
}

// independent reports whether a resource lies in a group itself and is
// nobody's child or extension: what "all resources" means in ARM.
func independent(t *Type, id arm.ID) bool {
	return !t.Extension && !id.GroupID().IsZero() && strings.Count(t.Name, "/") == 1 && t.Name != TypeGroup
}

// continuation is the key after which a page begins. The token is no secret
// and grants nothing, since a page is always read below its scope; it is
// checked so that a spoiled one is an error and not an empty list.
func continuation(scope arm.ID, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(token) > 4096 {
		return "", ErrToken
	}
	id, err := arm.ParseID(string(b))
	if err != nil || id.Key() != string(b) || !id.Within(scope) {
		return "", ErrToken
	}
	return string(b), nil
}
