package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

const (
	codeLifetime    = time.Hour
	maxCodeLifetime = 7 * 24 * time.Hour
	// codeEarly is how far a clock may go back under a code. One that was made
	// while the clock was far ahead would otherwise be good for as long as that.
	codeEarly = 5 * time.Minute
)

// TaskExpireCode is the kind of the task that ends a join code; its handler is
// Joiner.Expire.
const TaskExpireCode = "network.expire-join-code"

// A join code is kept under the hash of its secret, as long as it is good:
//
//	/providers/Cove.Network/joinCodes/{SHA-256 of the secret}
func codeID(hash string) arm.ID { return arm.MustID("/providers/Cove.Network/joinCodes/" + hash) }

// joinCode keeps an interface in the subnet for a machine that is not there
// yet, and answers with the code by which that machine takes it. The right to
// join the subnet is what it needs: whoever may put interfaces there may let
// somebody else do so, once.
func (cfg Config) joinCode(ctx context.Context, tx resource.Tx, sub resource.Doc, by resource.Caller, body resource.Object) (resource.Object, error) {
	if err := may(by, ActionJoin, sub.ID); err != nil {
		return nil, err
	}
	if err := cfg.joinable(sub.ID.Parent()); err != nil {
		return nil, err
	}
	name, kind, lifetime, err := readJoin(body)
	if err != nil {
		return nil, err
	}
	vnet, err := tx.Get(ctx, sub.ID.Parent())
	if err != nil {
		return nil, err
	}
	nic, err := reserve(ctx, tx, vnet, sub, name)
	if err != nil {
		return nil, err
	}
	made := cfg.now().UTC().Truncate(time.Second)
	code := Code{
		Management: cfg.Management, Fingerprint: cfg.Fingerprint, Dial: cfg.Dial,
		NIC:     nic.ID.String(),
		Expires: made.Add(lifetime),
		Secret:  newSecret(),
	}
	hash := code.Secret.Hash()
	set(nic.Body, hash, "cove", "reservation")
	if err := tx.Put(ctx, &nic); err != nil {
		return nil, err
	}
	doc := resource.Doc{ID: codeID(hash), Body: resource.Object{
		"nic": nic.ID.String(), "nicETag": nic.ETag, "name": name, "kind": kind,
		"made": made.Format(time.RFC3339), "expires": code.Expires.Format(time.RFC3339),
	}}
	if err := tx.Put(ctx, &doc); err != nil {
		return nil, err
	}
	work, err := json.Marshal(expiry{hash})
	if err != nil {
		return nil, err
	}
	if err := tx.Enqueue(ctx, task.New{Kind: TaskExpireCode, Key: hash, Body: work, After: code.Expires}); err != nil {
		return nil, err
	}
	return resource.Object{
		"code":             code.Text(),
		"expiresOn":        code.Expires.Format(time.RFC3339),
		"networkInterface": ref(nic.ID),
		"address":          storedConfigs(nic.Body)[0].address.String(),
	}, nil
}

func readJoin(body resource.Object) (name, kind string, lifetime time.Duration, err error) {
	var p problems
	name = textAt(body, "name")
	if why := checkName(name); why != "" {
		p.add("name", "%s", why)
	}
	if kind = p.oneOf("kind", textAt(body, "kind"), kinds...); kind == "" {
		kind = kinds[0]
	}
	lifetime = codeLifetime
	if v := body["expiresIn"]; v != nil {
		n, isNumber := v.(json.Number)
		secs, err := n.Int64()
		if !isNumber || err != nil || secs < 1 || secs > int64(maxCodeLifetime/time.Second) {
			p.add("expiresIn", "it is a number of seconds from 1 to %d", int64(maxCodeLifetime/time.Second))
		}
		lifetime = time.Duration(secs) * time.Second
	}
	return name, kind, lifetime, fault.Problems(p)
}

// reserve returns the interface that a code will be for, not yet written: a
// new one, or one that an earlier code kept and nobody took, whose code ends.
// Any other interface of that name is refused: the right to join a subnet is
// not the right to take over a machine's address.
func reserve(ctx context.Context, tx resource.Tx, vnet, sub resource.Doc, name string) (resource.Doc, error) {
	id := vnet.ID.GroupID()
	nicID, err := arm.ParseID(id.String() + "/providers/" + TypeInterface + "/" + name)
	if err != nil {
		return resource.Doc{}, err
	}
	nic, err := tx.Get(ctx, nicID)
	switch {
	case errors.Is(err, resource.ErrUnknown):
		nic = resource.Doc{ID: nicID, Body: resource.Object{
			"location": textAt(vnet.Body, "location"),
			"properties": resource.Object{"ipConfigurations": []any{resource.Object{
				"name": "ipconfig1", "properties": resource.Object{"subnet": ref(sub.ID)},
			}}},
		}}
		return nic, readdress(ctx, tx, nicID, nil, storedConfigs(nic.Body))
	case err != nil:
		return resource.Doc{}, err
	}
	hash := textAt(nic.Body, "cove", "reservation")
	configs := storedConfigs(nic.Body)
	if hash == "" || len(configs) == 0 || !configs[0].subnet.Equal(sub.ID) {
		return resource.Doc{}, ErrNameTaken.Detail("A network interface named '%s' exists.", name)
	}
	switch _, err := tx.Get(ctx, codeID(hash)); {
	case errors.Is(err, resource.ErrUnknown):
		return resource.Doc{}, ErrNameTaken.Detail("A network interface named '%s' exists, and its join code has been used.", name)
	case err != nil:
		return resource.Doc{}, err
	}
	switch taken, err := occupied(ctx, tx, nic.ID); {
	case err != nil:
		return resource.Doc{}, err
	case taken:
		return resource.Doc{}, ErrNameTaken.Detail("A network interface named '%s' exists, and a machine has it.", name)
	}
	return nic, tx.Delete(ctx, codeID(hash))
}

// occupied reports whether an interface has a machine. One that was put by hand
// on an interface that a code is kept for may carry identities; whoever holds
// the code would else be that machine.
func occupied(ctx context.Context, r resource.Reader, nic arm.ID) (bool, error) {
	members, err := r.List(ctx, resource.Query{Type: TypeMember, Under: nic, Limit: 1})
	return len(members) > 0, err
}

// Joiner turns join codes into members. It needs no caller: the code is the
// proof.
type Joiner struct {
	Store  resource.Store
	Config Config
}

// Redeem makes the code's interface the machine's that holds publicKey
// (WireGuard, base64), and returns its configuration. resolver is where the
// machine will ask for names, "" for the usual address. It succeeds once; every
// failure of the code itself is ErrCode, whichever it is.
func (j Joiner) Redeem(ctx context.Context, secret, publicKey, resolver string) (Configuration, error) {
	s, err := ParseSecret(secret)
	if err != nil {
		return Configuration{}, err
	}
	if _, err := parseKey(publicKey); err != nil {
		return Configuration{}, fault.Problems([]fault.Field{{Path: "publicKey", Message: err.Error()}})
	}
	var out Configuration
	err = j.Store.Update(ctx, func(tx resource.Tx) error {
		doc, err := tx.Get(ctx, codeID(s.Hash()))
		if err != nil {
			return orCode(err)
		}
		if expired, err := codeExpired(doc, j.Config.now()); err != nil || expired {
			return errors.Join(err, ErrCode)
		}
		nic := idAt(doc.Body, "nic")
		at, err := locate(ctx, tx, nic)
		if err != nil {
			return orCode(err)
		}
		if taken, err := occupied(ctx, tx, nic); err != nil || taken {
			return errors.Join(err, ErrCode)
		}
		member := resource.Doc{
			ID: arm.MustID(nic.String() + "/providers/" + TypeMember + "/" + textAt(doc.Body, "name")),
			Body: resource.Object{"properties": resource.Object{
				"publicKey": publicKey, "kind": textAt(doc.Body, "kind"),
			}},
		}
		if resolver != "" {
			set(member.Body, resolver, "properties", "resolver")
		}
		if wrong := checkMember(&resource.Change{New: &member}); len(wrong) > 0 {
			return fault.Problems(wrong)
		}
		if err := j.Config.putMember(ctx, tx, nil, &member); err != nil {
			return err
		}
		if err := tx.Put(ctx, &member); err != nil {
			return err
		}
		out = j.Config.configuration(at, member.Body)
		out.Member = member.ID.String()
		return tx.Delete(ctx, doc.ID)
	})
	return out, err
}

func orCode(err error) error {
	if errors.Is(err, resource.ErrUnknown) {
		return ErrCode
	}
	return err
}

// codeExpired reports whether a code's time has passed, or has not come.
func codeExpired(doc resource.Doc, now time.Time) (bool, error) {
	made, err := time.Parse(time.RFC3339, textAt(doc.Body, "made"))
	at, err2 := time.Parse(time.RFC3339, textAt(doc.Body, "expires"))
	if err := errors.Join(err, err2); err != nil {
		return true, fmt.Errorf("a join code's times: %w", err)
	}
	return !now.Before(at) || now.Before(made.Add(-codeEarly)), nil
}

type expiry struct {
	Hash string `json:"hash"`
}

// Expire is the handler of TaskExpireCode: the code ends, and so does the
// interface that was kept for it, unless somebody has changed that since or
// made a member of it by hand.
func (j Joiner) Expire(ctx context.Context, t task.Task) error {
	var e expiry
	if err := json.Unmarshal(t.Body, &e); err != nil {
		return err
	}
	return j.Store.Update(ctx, func(tx resource.Tx) error {
		doc, err := tx.Get(ctx, codeID(e.Hash))
		if errors.Is(err, resource.ErrUnknown) {
			return nil // used, or its interface is gone
		}
		if err != nil {
			return err
		}
		if expired, err := codeExpired(doc, j.Config.now()); err != nil || !expired {
			return errors.Join(err, errors.New("the join code is still good: the clock went back"))
		}
		if err := tx.Delete(ctx, doc.ID); err != nil {
			return err
		}
		nic, err := tx.Get(ctx, idAt(doc.Body, "nic"))
		if errors.Is(err, resource.ErrUnknown) {
			return nil
		}
		if err != nil {
			return err
		}
		taken, err := occupied(ctx, tx, nic.ID)
		if err != nil || taken || nic.ETag != textAt(doc.Body, "nicETag") {
			return err
		}
		if err := deleteInterface(ctx, tx, nic, resource.Caller{}); err != nil {
			return err
		}
		return tx.Delete(ctx, nic.ID)
	})
}
