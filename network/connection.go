package network

import (
	"context"
	"errors"
	"slices"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// The states of a private endpoint connection. Only Approved carries traffic.
const (
	Approved     = "Approved"
	Pending      = "Pending"
	Rejected     = "Rejected"
	Disconnected = "Disconnected" // the registry's side is gone; the endpoint must be made again
)

// state is a privateLinkServiceConnectionState. It stands in the connection
// below the registry and, the same, in the private endpoint; both are written
// in one transaction.
type state struct{ Status, Description, ActionsRequired string }

func readState(o resource.Object) state {
	s := objectAt(o, "properties", "privateLinkServiceConnectionState")
	return state{textAt(s, "status"), textAt(s, "description"), textAt(s, "actionsRequired")}
}

func (s state) write(o resource.Object) {
	set(o, resource.Object{
		"status": s.Status, "description": s.Description, "actionsRequired": s.ActionsRequired,
	}, "properties", "privateLinkServiceConnectionState")
}

// connectionType is the registry owner's side of private endpoints: they
// approve and reject what others ask for, and take it away.
func connectionType(cfg Config) resource.Type {
	return resource.Type{
		Name:     TypeConnection,
		ReadOnly: []string{"properties.privateEndpoint", "properties.groupIds", "properties.provisioningState"},
		Check:    checkConnection,
		Put:      cfg.putConnection,
		Delete:   cfg.deleteConnection,
	}
}

const statePath = "properties.privateLinkServiceConnectionState."

func checkConnection(c *resource.Change) []fault.Field {
	var p problems
	s := readState(c.New.Body)
	if s.Status == "" {
		p.add(statePath+"status", "it must be Approved or Rejected")
	}
	p.oneOf(statePath+"status", s.Status, Approved, Rejected, Pending, Disconnected)
	p.oneOf(statePath+"actionsRequired", s.ActionsRequired, "None", "Recreate")
	if len(s.Description) > maxMessage {
		p.add(statePath+"description", "at most %d characters are allowed", maxMessage)
	}
	return p
}

// transitions are the states that an owner may set, from each. A state may
// always be set to itself, to change its description.
var transitions = map[string][]string{
	Pending:  {Approved, Rejected},
	Approved: {Rejected},
	Rejected: {Approved},
}

func mayBecome(from, to string) bool {
	return from == to && from != Disconnected || slices.Contains(transitions[from], to)
}

func (cfg Config) putConnection(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	if c.Old == nil {
		return resource.ErrUnknown.Detail("The private endpoint connection '%s' was not found. Connections are made by private endpoints.", c.New.ID.Name())
	}
	var none problems
	want := readState(c.New.Body)
	want.Status = none.oneOf("", want.Status, Approved, Rejected, Pending, Disconnected)
	if want.ActionsRequired = none.oneOf("", want.ActionsRequired, "None", "Recreate"); want.ActionsRequired == "" {
		want.ActionsRequired = "None"
	}
	if was := readState(c.Old.Body).Status; !mayBecome(was, want.Status) {
		return fault.At(statePath+"status", ErrTransition.Detail("A private endpoint connection that is %s cannot become %s.", was, want.Status))
	}
	if want.Status == Approved {
		if err := cfg.makePrivate(ctx, tx, c.New.ID.Parent()); err != nil {
			return err
		}
	}
	want.write(c.New.Body)
	return cfg.mirror(ctx, tx, idAt(c.Old.Body, "properties", "privateEndpoint", "id"), c.Old.ID, want)
}

// makePrivate makes a registry one with a private endpoint, which it becomes by
// an approval and never by somebody's asking.
func (cfg Config) makePrivate(ctx context.Context, tx resource.Tx, id arm.ID) error {
	reg, err := tx.Get(ctx, id)
	if err != nil {
		return err
	}
	changed, err := cfg.Registry.MakePrivate(&reg)
	if err != nil || !changed {
		return err
	}
	return tx.Put(ctx, &reg)
}

// deleteConnection leaves the endpoint where it is, dead: its owner sees why,
// and its addresses answer no more.
func (cfg Config) deleteConnection(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	err := cfg.mirror(ctx, tx, idAt(doc.Body, "properties", "privateEndpoint", "id"), doc.ID, state{
		Disconnected, "The owner of the registry removed the connection.", "Recreate",
	})
	if errors.Is(err, resource.ErrUnknown) {
		return nil // the endpoint has gone with its resource group
	}
	return err
}

// mirror writes the connection's state into the private endpoint.
func (cfg Config) mirror(ctx context.Context, tx resource.Tx, id, conn arm.ID, s state) error {
	pe, err := tx.Get(ctx, id)
	if err != nil {
		return err
	}
	// A name can be used again; its connection cannot.
	if !idAt(pe.Body, "cove", "connection").Equal(conn) {
		return resource.ErrUnknown
	}
	var none problems
	ask := readAsked(&none, pe.Body)
	if ask.body == nil {
		return errors.New("a private endpoint has no connection in its body")
	}
	s.write(ask.body)
	if err := tx.Put(ctx, &pe); err != nil {
		return err
	}
	return cfg.endpointChanged(ctx, tx, pe)
}
