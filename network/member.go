package network

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// A member is the one machine that has a network interface: the holder of a
// WireGuard key. It is an extension resource of the interface,
//
//	…/networkInterfaces/{nic}/providers/Cove.Network/members/{name}
//
// so that it never collides with a child that Azure may give interfaces, goes
// when the interface goes, and needs a permission of its own.
func memberType(cfg Config) resource.Type {
	return resource.Type{
		Name:      TypeMember,
		Extension: true,
		ReadOnly:  []string{"cove", "properties.configuration"},
		Secret:    []string{"cove"},
		Check:     checkMember,
		Put: func(ctx context.Context, tx resource.Tx, c *resource.Change) error {
			return cfg.putMember(ctx, tx, c.Old, c.New)
		},
		Delete: deleteMember,
		Show:   cfg.showMember,
	}
}

var kinds = []string{"vm", "aks", "aci", "appservice", "agentpool"}

func checkMember(c *resource.Change) []fault.Field {
	var p problems
	if !strings.EqualFold(c.New.ID.Parent().Type(), TypeInterface) {
		p.add("id", "a member belongs to a network interface")
	}
	if _, err := parseKey(textAt(c.New.Body, "properties", "publicKey")); err != nil {
		p.add("properties.publicKey", "%s", err)
	}
	kind := p.oneOf("properties.kind", textAt(c.New.Body, "properties", "kind"), kinds...)
	if kind == "" {
		kind = kinds[0]
	}
	set(c.New.Body, kind, "properties", "kind")
	if text := textAt(c.New.Body, "properties", "resolver"); text != "" {
		if a, err := netip.ParseAddr(text); err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			p.add("properties.resolver", "'%.60s' is not a unicast IPv4 address", text)
		}
	}
	return p
}

// ownResolver is the address at which a member asks for names where the usual
// one is taken on its machine; zero is the usual one.
func ownResolver(body resource.Object) netip.Addr {
	a, err := netip.ParseAddr(textAt(body, "properties", "resolver"))
	if err != nil || a == Resolver {
		return netip.Addr{}
	}
	return a
}

var errKey = errors.New("it is not a WireGuard public key (44 characters of base64)")

// decodeKey reads a key that has been accepted.
func decodeKey(s string) ([32]byte, error) {
	if len(s) != base64.StdEncoding.EncodedLen(32) {
		return [32]byte{}, errKey
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 32 {
		return [32]byte{}, errKey
	}
	return [32]byte(b), nil
}

// parseKey reads a WireGuard public key from a stranger: 32 bytes in standard
// base64. A key of low order is refused: with it the tunnel's secret would be
// one that everybody knows.
func parseKey(s string) ([32]byte, error) {
	b, err := decodeKey(s)
	if err != nil {
		return b, err
	}
	pub, err := ecdh.X25519().NewPublicKey(b[:])
	if err != nil {
		return b, errKey
	}
	own, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return b, err
	}
	if _, err := own.ECDH(pub); err != nil {
		return b, errors.New("it is a key that agrees on no secret")
	}
	return b, nil
}

// HasKey reports whether a member holds the private key of this public one.
func HasKey(member resource.Doc, key [32]byte) bool {
	own, err := decodeKey(textAt(member.Body, "properties", "publicKey"))
	return err == nil && own == key
}

// Replaced reports whether a change gives a member another key, and so makes
// another machine the member.
func Replaced(c *resource.Change) bool {
	return c.Old != nil && textAt(c.Old.Body, "properties", "publicKey") != textAt(c.New.Body, "properties", "publicKey")
}

// keyID is the document that says which member has a key, one for each
// virtual network, so that two transactions cannot give it twice.
func keyID(vnetUID string, key [32]byte) arm.ID {
	return arm.MustID("/providers/Cove.Network/networks/" + vnetUID + "/keys/" + hex.EncodeToString(key[:]))
}

// place is where a network interface is: its network and first address.
type place struct {
	nic     resource.Doc
	vnet    resource.Doc
	subnet  arm.ID
	address netip.Addr
	peers   []netip.Prefix // of the networks that its own is joined with
}

func locate(ctx context.Context, r resource.Reader, nic arm.ID) (place, error) {
	doc, err := r.Get(ctx, nic)
	if err != nil {
		return place{}, err
	}
	configs := storedConfigs(doc.Body)
	if len(configs) == 0 {
		return place{}, errors.New("a network interface has no ip configuration")
	}
	vnet, err := r.Get(ctx, configs[0].subnet.Parent())
	if err != nil {
		return place{}, err
	}
	peers, err := peerPrefixes(ctx, r, vnet.ID)
	return place{doc, vnet, configs[0].subnet, configs[0].address, peers}, err
}

// spaces are the address spaces that lead into the tunnel.
func (at place) spaces() []netip.Prefix {
	var none problems
	return append(vnetPrefixes(&none, at.vnet.Body), at.peers...)
}

func within(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (cfg Config) putMember(ctx context.Context, tx resource.Tx, old, doc *resource.Doc) error {
	key, err := decodeKey(textAt(doc.Body, "properties", "publicKey"))
	if err != nil {
		return err
	}
	at, err := locate(ctx, tx, doc.ID.Parent())
	if err != nil {
		return err
	}
	if !idAt(at.nic.Body, "properties", "privateEndpoint", "id").IsZero() {
		return ErrEndpointNIC
	}
	if err := cfg.joinable(at.vnet.ID); err != nil {
		return err
	}
	// The answer holds the configuration: whoever writes the member has it anew.
	setRoutes(doc.Body, at.spaces())
	if own := textAt(at.vnet.Body, "properties", "cove", "publicKey"); own == textAt(doc.Body, "properties", "publicKey") {
		return ErrKeyTaken
	}
	// Security groups have no say about resolvers, so none may be anybody's.
	if a := ownResolver(doc.Body); a == cfg.frontEnd() || within(at.spaces(), a) {
		return fault.Problems([]fault.Field{{Path: "properties.resolver", Message: a.String() + " is an address of the virtual network, of one that is peered with it, or of the registries' public side"}})
	}
	others, err := tx.List(ctx, resource.Query{Type: TypeMember, Under: at.nic.ID})
	if err != nil {
		return err
	}
	for _, o := range others {
		if !o.ID.Equal(doc.ID) {
			return fault.Newf(fault.Conflict, "Network interface '%s' has the member '%s' already; an interface is one machine's.", at.nic.ID.Name(), o.ID.Name())
		}
	}
	if old != nil {
		was, err := decodeKey(textAt(old.Body, "properties", "publicKey"))
		if err != nil {
			return err
		}
		if was == key {
			return nil
		}
		if err := tx.Delete(ctx, keyID(at.vnet.UID, was)); err != nil {
			return err
		}
	}
	switch _, err := tx.Get(ctx, keyID(at.vnet.UID, key)); {
	case err == nil:
		return ErrKeyTaken
	case !errors.Is(err, resource.ErrUnknown):
		return err
	}
	return tx.Put(ctx, &resource.Doc{ID: keyID(at.vnet.UID, key), Body: resource.Object{"member": doc.ID.String()}})
}

func deleteMember(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	key, err := decodeKey(textAt(doc.Body, "properties", "publicKey"))
	if err != nil {
		return err
	}
	at, err := locate(ctx, tx, doc.ID.Parent())
	if err != nil {
		return err
	}
	return tx.Delete(ctx, keyID(at.vnet.UID, key))
}

// Configuration is what a member must know to bring its tunnel up.
type Configuration struct {
	Member          string   `json:"member,omitempty"` // resource id
	ServerPublicKey string   `json:"serverPublicKey"`
	Endpoint        string   `json:"endpoint"` // host:port
	AllowedIPs      []string `json:"allowedIPs"`
	Address         string   `json:"address"`
	Resolver        string   `json:"resolver"`
	MTU             int      `json:"mtu"`
}

func (cfg Config) configuration(at place, member resource.Object) Configuration {
	c := Configuration{
		ServerPublicKey: textAt(at.vnet.Body, "properties", "cove", "publicKey"),
		Endpoint:        cfg.Endpoint,
		Address:         at.address.String(),
		MTU:             cfg.mtu(),
	}
	resolver := Resolver
	if own := ownResolver(member); own.IsValid() {
		resolver = own
	}
	c.Resolver = resolver.String()
	for _, p := range at.spaces() {
		c.AllowedIPs = append(c.AllowedIPs, p.String())
	}
	c.AllowedIPs = append(c.AllowedIPs, netip.PrefixFrom(resolver, resolver.BitLen()).String())
	if front := cfg.frontEnd(); front != resolver {
		c.AllowedIPs = append(c.AllowedIPs, netip.PrefixFrom(front, front.BitLen()).String())
	}
	return c
}

func (cfg Config) showMember(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	at, err := locate(ctx, r, doc.ID.Parent())
	if err != nil {
		return err
	}
	c := cfg.configuration(at, doc.Body)
	allowed := make([]any, len(c.AllowedIPs))
	for i, a := range c.AllowedIPs {
		allowed[i] = a
	}
	set(body, resource.Object{
		"serverPublicKey": c.ServerPublicKey,
		"endpoint":        c.Endpoint,
		"allowedIPs":      allowed,
		"address":         c.Address,
		"resolver":        c.Resolver,
		"mtu":             c.MTU,
	}, "properties", "configuration")
	set(body, "Succeeded", "properties", "provisioningState")
	return nil
}
