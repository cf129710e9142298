package graphapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/directory"
)

func unknown(id string) error {
	return directory.ErrUnknown.Detail("Resource '%.120s' does not exist or one of its queried reference-property objects are not present.", id)
}

// object returns what a path names: by object id, by (appId='…'), and a user
// by its sign-in name. One of another tenant or of another kind is not there.
func (s *Server) object(ctx context.Context, c *call, k *kind, named string) (directory.Object, error) {
	q := directory.Query{Tenant: c.caller.Tenant, Kind: k.name, Limit: 1}
	if key, ok := strings.CutPrefix(named, "("); ok {
		value, after, isText := quoted(strings.TrimPrefix(key, "appId="))
		if !k.secrets || !strings.HasPrefix(key, "appId=") || !isText || after != ")" || value == "" {
			return directory.Object{}, errRequest.Detail("The key '%.80s' is not one that an object is found by.", named)
		}
		q.AppID, named = value, value
	} else if k.name == directory.User && strings.Contains(named, "@") {
		q.UPN = named
	}
	if q.AppID != "" || q.UPN != "" {
		list, err := s.Directory.Objects(ctx, q)
		if err == nil && len(list) == 0 {
			err = unknown(named)
		}
		if err != nil {
			return directory.Object{}, err
		}
		return list[0], nil
	}
	o, err := s.Directory.Object(ctx, named)
	if errors.Is(err, directory.ErrUnknown) || err == nil && (o.Kind != k.name || o.Tenant != c.caller.Tenant) {
		return directory.Object{}, unknown(named)
	}
	return o, err
}

// one is the answer that shows an object.
func (s *Server) one(status int, o *directory.Object) reply {
	out := shown(o)
	out["@odata.context"] = s.at("$metadata#" + kindOf(o.Kind).set + "/$entity")
	return reply{status, out}
}

func (s *Server) at(path string) string { return "https://" + s.Host + "/v1.0/" + path }

func (k *kind) get(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	return s.one(http.StatusOK, &o), nil
}

// scanPages bounds what a filter without an index may make the store read for
// one page; the page's link goes on from there.
const scanPages = 10

func (k *kind) list(s *Server, ctx context.Context, c *call) (reply, error) {
	f, err := parseFilter(c.query.Get("$filter"))
	if err != nil {
		return reply{}, err
	}
	q := directory.Query{Tenant: c.caller.Tenant, Kind: k.name, Limit: directory.MaxPage}
	f.narrow(&q)
	return s.page(c, k.set, q.Limit, f, func(after string) ([]directory.Object, error) {
		q.After = after
		return s.Directory.Objects(ctx, q)
	})
}

// page is one page of what next returns, MaxPage at a time.
func (s *Server) page(c *call, set string, chunk int, f filter, next func(after string) ([]directory.Object, error)) (reply, error) {
	limit := 100
	if top := c.query.Get("$top"); top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 || n > directory.MaxPage {
			return reply{}, errQuery.Detail("The value of $top must be between 1 and %d.", directory.MaxPage)
		}
		limit = n
	}
	after := c.query.Get("$skiptoken")
	if after != "" && !directory.IsID(after) {
		return reply{}, errQuery.Detail("The $skiptoken is not one of ours.")
	}
	values, more := []any{}, false
scan:
	for n := 0; ; n++ {
		if more = n == scanPages; more {
			break
		}
		list, err := next(after)
		if err != nil {
			return reply{}, err
		}
		for i := range list {
			out := shown(&list[i])
			if f.holds(out) {
				if more = len(values) == limit; more {
					break scan
				}
				if set == "directoryObjects" {
					out["@odata.type"] = kindOf(list[i].Kind).odata()
				}
				values = append(values, out)
			}
			after = list[i].ObjectID
		}
		if len(list) < chunk {
			break
		}
	}
	out := map[string]any{"@odata.context": s.at("$metadata#" + set), "value": values}
	if more {
		q := url.Values{"$skiptoken": {after}}
		for _, name := range []string{"$filter", "$top"} {
			if v := c.query.Get(name); v != "" {
				q.Set(name, v)
			}
		}
		out["@odata.nextLink"] = "https://" + s.Host + c.path + "?" + q.Encode()
	}
	return reply{http.StatusOK, out}, nil
}

func (k *kind) create(s *Server, ctx context.Context, c *call) (reply, error) {
	o := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: c.caller.Tenant, Kind: k.name}, Created: s.Now()}
	if err := k.accept(&o, c.body, true); err != nil {
		return reply{}, err
	}
	switch k.name {
	case directory.Application:
		o.AppID = directory.NewID()
	case directory.ServicePrincipal:
		if err := s.ofApplication(ctx, c, &o); err != nil {
			return reply{}, err
		}
	case directory.User:
		cred, err := directory.NewPassword(ctx, newPassword(c.body), s.Now())
		if err != nil {
			return reply{}, err
		}
		o.Credentials = append(o.Credentials, cred)
	}
	if k.secrets {
		change, _, err := certificates(c.body, s.Now())
		if err != nil {
			return reply{}, err
		}
		if o.Credentials, err = change(nil); err != nil {
			return reply{}, err
		}
	}
	if err := s.Directory.Add(ctx, o); err != nil {
		return reply{}, s.taken(err, &o)
	}
	return s.one(http.StatusCreated, &o), nil
}

// ofApplication gives a service principal the name and id of its application.
func (s *Server) ofApplication(ctx context.Context, c *call, o *directory.Object) error {
	id, _ := c.body["appId"].(string)
	apps, err := s.Directory.Objects(ctx, directory.Query{Tenant: c.caller.Tenant, Kind: directory.Application, AppID: id, Limit: 1})
	if err != nil {
		return err
	}
	if id == "" || len(apps) == 0 {
		return errRequest.Detail("The appId '%.60s' of the service principal does not reference a valid application object.", id)
	}
	o.AppID, o.Name = apps[0].AppID, apps[0].Name
	return nil
}

func (s *Server) taken(err error, o *directory.Object) error {
	switch {
	case !errors.Is(err, directory.ErrTaken):
		return err
	case o.Kind == directory.ServicePrincipal:
		return directory.ErrTaken.Detail("The service principal cannot be created, updated, or restored because the service principal name %s is already in use.", o.AppID)
	}
	return directory.ErrTaken.Detail("Another object with the same value for property userPrincipalName already exists.")
}

func (k *kind) patch(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	if _, enabled := c.body["accountEnabled"]; o.Managed != "" && (!enabled || len(c.body) != 1) {
		return reply{}, directory.ErrManaged
	}
	change, keyed, err := certificates(c.body, s.Now())
	if err != nil {
		return reply{}, err
	}
	if text := newPassword(c.body); text != "" {
		if err := directory.CheckPassword(text); err != nil {
			return reply{}, err
		}
	}
	changed, err := s.Directory.Change(ctx, o.ObjectID, func(o *directory.Object) error { return k.accept(o, c.body, false) })
	if err != nil {
		return reply{}, s.taken(err, &o)
	}
	if keyed && k.secrets {
		if err := s.Directory.ChangeCertificates(ctx, o.ObjectID, change); err != nil {
			return reply{}, err
		}
	}
	if text := newPassword(c.body); text != "" && k.name == directory.User {
		if err := s.Directory.SetPassword(ctx, o.ObjectID, text); err != nil {
			return reply{}, err
		}
	}
	if k.name == directory.Application && changed.Name != o.Name {
		if err := s.rename(ctx, &changed); err != nil {
			return reply{}, err
		}
	}
	return reply{status: http.StatusNoContent}, nil
}

// rename gives an application's service principal its new name.
func (s *Server) rename(ctx context.Context, app *directory.Object) error {
	list, err := s.Directory.Objects(ctx, directory.Query{Tenant: app.Tenant, Kind: directory.ServicePrincipal, AppID: app.AppID, Limit: 1})
	if err != nil || len(list) == 0 {
		return err
	}
	_, err = s.Directory.Change(ctx, list[0].ObjectID, func(o *directory.Object) error {
		o.Name = app.Name
		return nil
	})
	return err
}

// delete takes an object away. Nobody takes itself away: what owned a
// deployment would be gone with nobody left to make another.
func (k *kind) delete(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	if o.ObjectID == c.caller.ObjectID || o.AppID != "" && o.AppID == c.caller.Name {
		return reply{}, errRequest.Detail("An identity cannot delete itself: sign in as another that may.")
	}
	if o.Managed != "" {
		return reply{}, directory.ErrManaged
	}
	if err := s.Directory.Remove(ctx, o.ObjectID); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, nil
}

// defaultLife is how long a secret is good where its maker does not say.
const defaultLife = 2 * 365 * 24 * time.Hour

// skew is by how much a client's clock may be ahead: a secret that begins
// within it begins now.
const skew = 5 * time.Minute

func (k *kind) addPassword(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	if o.Managed != "" {
		return reply{}, directory.ErrManaged
	}
	want, _ := c.body["passwordCredential"].(map[string]any)
	name, _ := want["displayName"].(string)
	if len(name) > 120 {
		return reply{}, errRequest.Detail("The displayName of a password credential is at most 120 characters long.")
	}
	now := s.Now()
	start, err := moment(want, "startDateTime", now)
	if err != nil {
		return reply{}, err
	}
	if start.Before(now.Add(skew)) {
		start = now
	}
	end, err := moment(want, "endDateTime", start.Add(defaultLife))
	if err != nil {
		return reply{}, err
	}
	if !end.After(start) {
		return reply{}, errRequest.Detail("The endDateTime of a password credential must be later than its startDateTime and than now.")
	}
	secret, cred, err := s.Directory.AddSecret(ctx, o.ObjectID, name, start, end)
	if err != nil {
		return reply{}, err
	}
	out := password(cred)
	out["@odata.context"] = s.at("$metadata#microsoft.graph.passwordCredential")
	out["secretText"] = secret.Reveal()
	return reply{http.StatusOK, out}, nil
}

func moment(o map[string]any, name string, absent time.Time) (time.Time, error) {
	if o[name] == nil {
		return absent, nil
	}
	text, _ := o[name].(string)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 2000 || t.Year() > 2299 {
		return time.Time{}, errRequest.Detail("The %s of a password credential must be a time such as 2027-01-31T00:00:00Z.", name)
	}
	return t, nil
}

func (k *kind) removePassword(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	key, _ := c.body["keyId"].(string)
	err = s.Directory.RemoveSecret(ctx, o.ObjectID, key)
	if errors.Is(err, directory.ErrUnknown) {
		err = errRequest.Detail("No password credential found with keyId '%.60s'.", key)
	}
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, nil
}

// me is the signed-in user; a service principal is told, as by Graph, that it
// is none.
func (s *Server) me(ctx context.Context, c *call) (reply, error) {
	o, err := s.Directory.Object(ctx, c.caller.ObjectID)
	if err != nil {
		return reply{}, err
	}
	if o.Kind != directory.User {
		return reply{}, errRequest.Detail("/me request is only valid with delegated authentication flow.")
	}
	return s.one(http.StatusOK, &o), nil
}

func (s *Server) anyObject(ctx context.Context, c *call) (reply, error) {
	o, err := s.Directory.Object(ctx, c.params[0])
	if errors.Is(err, directory.ErrUnknown) || err == nil && o.Tenant != c.caller.Tenant {
		err = unknown(c.params[0])
	}
	if err != nil {
		return reply{}, err
	}
	out := s.one(http.StatusOK, &o)
	out.body.(map[string]any)["@odata.type"] = kindOf(o.Kind).odata()
	return out, nil
}

// maxIDs is Graph's limit of getByIds.
const maxIDs = 1000

func (s *Server) getByIDs(ctx context.Context, c *call) (reply, error) {
	ids, err := texts(c.body, "ids")
	if err != nil {
		return reply{}, err
	}
	types, err := texts(c.body, "types")
	if err != nil {
		return reply{}, err
	}
	list, err := s.Directory.ObjectsByID(ctx, ids)
	if err != nil {
		return reply{}, err
	}
	values := []any{}
	for i := range list {
		o := &list[i]
		wanted := len(types) == 0
		for _, t := range types {
			wanted = wanted || strings.EqualFold(t, o.Kind) || strings.EqualFold(t, "directoryObject")
		}
		if wanted && o.Tenant == c.caller.Tenant {
			out := shown(o)
			out["@odata.type"] = kindOf(o.Kind).odata()
			values = append(values, out)
		}
	}
	return reply{http.StatusOK, map[string]any{"@odata.context": s.at("$metadata#directoryObjects"), "value": values}}, nil
}

// texts is a list of at most maxIDs strings in a body.
func texts(body map[string]any, name string) ([]string, error) {
	list, ok := body[name].([]any)
	if body[name] != nil && !ok || len(list) > maxIDs {
		return nil, errRequest.Detail("The property '%s' must be a list of at most %d texts.", name, maxIDs)
	}
	var out []string
	for _, v := range list {
		text, ok := v.(string)
		if !ok || len(text) > 200 {
			return nil, errRequest.Detail("The property '%s' must be a list of at most %d texts.", name, maxIDs)
		}
		out = append(out, text)
	}
	return out, nil
}

func (s *Server) group(ctx context.Context, c *call) (directory.Object, error) {
	return s.object(ctx, c, kindOf(directory.Group), c.params[0])
}

func (s *Server) members(ctx context.Context, c *call) (reply, error) {
	g, err := s.group(ctx, c)
	if err != nil {
		return reply{}, err
	}
	f, err := parseFilter(c.query.Get("$filter"))
	if err != nil {
		return reply{}, err
	}
	return s.page(c, "directoryObjects", directory.MaxPage, f, func(after string) ([]directory.Object, error) {
		return s.Directory.Members(ctx, g.ObjectID, after, directory.MaxPage)
	})
}

// addMember takes the address of an object, of which only the id counts.
// Nothing is ever asked of that address.
func (s *Server) addMember(ctx context.Context, c *call) (reply, error) {
	g, err := s.group(ctx, c)
	if err != nil {
		return reply{}, err
	}
	at, _ := c.body["@odata.id"].(string)
	id := at[strings.LastIndexByte(at, '/')+1:]
	if !directory.IsID(id) {
		return reply{}, errRequest.Detail("The @odata.id must be %s and an object id.", s.at("directoryObjects/"))
	}
	err = s.Directory.AddMember(ctx, g.ObjectID, id)
	if errors.Is(err, directory.ErrUnknown) {
		err = unknown(id)
	}
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, nil
}

func (s *Server) removeMember(ctx context.Context, c *call) (reply, error) {
	g, err := s.group(ctx, c)
	if err != nil {
		return reply{}, err
	}
	err = s.Directory.RemoveMember(ctx, g.ObjectID, c.params[1])
	if errors.Is(err, directory.ErrUnknown) {
		err = unknown(c.params[1])
	}
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, nil
}

// memberGroups are all groups that an object is in, through others too.
func (s *Server) memberGroups(ctx context.Context, c *call) (reply, error) {
	groups, err := s.groupsOf(ctx, c)
	if err != nil {
		return reply{}, err
	}
	return s.strings(groups), nil
}

// memberGroups is the same of one of the kind, who may be named as get takes it.
func (k *kind) memberGroups(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	groups, err := s.Directory.Groups(ctx, o.ObjectID)
	if err != nil {
		return reply{}, err
	}
	return s.strings(groups), nil
}

func (s *Server) checkMemberGroups(ctx context.Context, c *call) (reply, error) {
	asked, err := texts(c.body, "groupIds")
	if err != nil {
		return reply{}, err
	}
	groups, err := s.groupsOf(ctx, c)
	if err != nil {
		return reply{}, err
	}
	in := []string{}
	for _, g := range groups {
		for _, a := range asked {
			if strings.EqualFold(a, g) {
				in = append(in, g)
				break
			}
		}
	}
	return s.strings(in), nil
}

func (s *Server) groupsOf(ctx context.Context, c *call) ([]string, error) {
	if _, err := s.anyObject(ctx, c); err != nil {
		return nil, err
	}
	return s.Directory.Groups(ctx, strings.ToLower(c.params[0]))
}

func (s *Server) strings(list []string) reply {
	if list == nil {
		list = []string{}
	}
	return reply{http.StatusOK, map[string]any{"@odata.context": s.at("$metadata#Collection(Edm.String)"), "value": list}}
}
