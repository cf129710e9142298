package network

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

func virtualNetworkType(cfg Config) resource.Type {
	return resource.Type{
		Name:      TypeVirtualNetwork,
		CheckName: checkName,
		ReadOnly:  []string{"cove", "properties.cove", "properties.provisioningState", "properties.resourceGuid"},
		Secret:    []string{"cove"},
		Located:   true,
		Check:     cfg.checkVirtualNetwork,
		Put:       cfg.putVirtualNetwork,
		Show:      showVirtualNetwork,
	}
}

var vnetUnobeyed = unobeyed{
	"enableDdosProtection": "DDoS protection is", "ddosProtectionPlan": "DDoS protection is", "enableVmProtection": "VM protection is",
	"encryption.enabled": "the encryption of virtual networks as a setting is", "bgpCommunities": "BGP communities are", "flowTimeoutInMinutes": "timeouts of flows are",
	"dhcpOptions.dnsServers": "DNS servers that members are told of (set them on the machines; the network's own resolver is " + Resolver.String() + ") are",
	"ipAllocations":          "IP allocations are", "privateEndpointVNetPolicies": "policies of private endpoints by network are",
}

// forbidden are ranges that no network may contain: Azure's list.
var forbidden = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.PrefixFrom(Resolver, 32),
}

func (cfg Config) checkVirtualNetwork(c *resource.Change) []fault.Field {
	var p problems
	const path = "properties.addressSpace.addressPrefixes"
	taken := append([]netip.Prefix{netip.PrefixFrom(cfg.frontEnd(), cfg.frontEnd().BitLen())}, forbidden...)
	for _, pre := range vnetPrefixes(&p, c.New.Body) {
		for _, f := range taken {
			if f.Overlaps(pre) {
				p.add(path, "%s contains %s, which no virtual network may", pre, f)
			}
		}
	}
	vnetUnobeyed.refuse(&p, "properties.", objectAt(c.New.Body, "properties"))
	names := map[string]bool{}
	for i, s := range objectsAt(c.New.Body, "properties", "subnets") {
		at := fmt.Sprintf("properties.subnets[%d].", i)
		props := objectAt(s, "properties")
		if props == nil {
			p.add(at+"properties", "it must be an object")
			continue
		}
		name := strings.ToLower(textAt(s, "name"))
		if names[name] {
			p.add(at+"name", "two subnets have this name")
		}
		names[name] = true
		checkSubnetBody(&p, at, name, props)
	}
	if v := at(c.New.Body, "properties", "subnets"); v != nil {
		if _, ok := v.([]any); !ok {
			p.add("properties.subnets", "it must be a list")
		}
	}
	return p
}

func vnetPrefixes(p *problems, body resource.Object) []netip.Prefix {
	const path = "properties.addressSpace.addressPrefixes"
	var texts []string
	for _, v := range listAt(body, "properties", "addressSpace", "addressPrefixes") {
		s, _ := v.(string)
		texts = append(texts, s)
	}
	if len(texts) == 0 {
		p.add(path, "at least one prefix such as 10.0.0.0/16 is required")
	}
	return parsePrefixes(p, path, texts)
}

func (cfg Config) putVirtualNetwork(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	if textAt(c.New.Body, "cove", "privateKey") == "" {
		if err := cfg.newKey(c.New); err != nil {
			return err
		}
	}
	if err := samePeerings(ctx, tx, c); err != nil {
		return err
	}
	if c.Old != nil {
		if err := keepsPeers(ctx, tx, *c.New); err != nil {
			return err
		}
	}
	return inlineSubnets(ctx, tx, c)
}

// newKey gives a network its WireGuard key. It is never replaced: every
// member's configuration names its public half.
func (cfg Config) newKey(doc *resource.Doc) error {
	var key PrivateKey
	rand.Read(key[:])
	key[0] &= 248
	key[31] = key[31]&127 | 64
	pub, err := key.public()
	if err != nil {
		return err
	}
	sealed, err := cfg.Sealer.Seal(key[:], sealedFor(*doc))
	if err != nil {
		return fmt.Errorf("seal the key of a virtual network: %w", err)
	}
	set(doc.Body, base64.StdEncoding.EncodeToString(sealed), "cove", "privateKey")
	set(doc.Body, pub, "properties", "cove", "publicKey")
	return nil
}

// sealedFor is the context of a network's key: a row of the database that is
// copied over another's does not give that network this key.
func sealedFor(vnet resource.Doc) []byte { return []byte("virtual network/" + vnet.UID) }

// public is the key's other half, in base64 as WireGuard writes it.
func (k PrivateKey) public() (string, error) {
	key, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()), nil
}

// openKey reads the key that newKey wrote.
func openKey(s Sealer, vnet resource.Doc) (PrivateKey, error) {
	sealed, err := base64.StdEncoding.DecodeString(textAt(vnet.Body, "cove", "privateKey"))
	if err != nil {
		return PrivateKey{}, err
	}
	key, err := s.Open(sealed, sealedFor(vnet))
	if err != nil {
		return PrivateKey{}, err
	}
	if len(key) != len(PrivateKey{}) {
		return PrivateKey{}, fmt.Errorf("the key has %d bytes", len(key))
	}
	return PrivateKey(key), nil
}

func showVirtualNetwork(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	set(body, "Succeeded", "properties", "provisioningState")
	set(body, resourceGUID(doc), "properties", "resourceGuid")
	subnets, err := r.List(ctx, resource.Query{Type: TypeSubnet, Under: doc.ID})
	if err != nil {
		return err
	}
	asListed(doc, "subnets", subnets)
	inline := make([]any, len(subnets))
	for i, s := range subnets {
		o := resource.Clone(s.Body)
		if err := showSubnet(ctx, r, s, o); err != nil {
			return err
		}
		o["id"], o["name"], o["type"], o["etag"] = s.ID.String(), s.ID.Name(), TypeSubnet, s.ETag
		inline[i] = o
	}
	set(body, inline, "properties", "subnets")
	peerings, err := shownPeerings(ctx, r, doc.ID)
	if err != nil {
		return err
	}
	set(body, peerings, "properties", "virtualNetworkPeerings")
	return nil
}

// inlineBody is the body of a child that stands inside another's: what was sent,
// without what names the child and what callers cannot set.
func inlineBody(sent resource.Object, readOnly []string) resource.Object {
	body := resource.Clone(sent)
	for _, path := range slices.Concat([]string{"id", "name", "type", "etag"}, readOnly) {
		resource.Remove(body, path)
	}
	return body
}

// asListed puts children that stand inside a resource's body in the order in
// which they were last sent there; those made since, or by themselves, follow.
// What a client sends, it gets back in its order.
func asListed(doc resource.Doc, key string, children []resource.Doc) {
	order := listAt(doc.Body, "cove", key)
	place := func(d resource.Doc) int {
		i := slices.IndexFunc(order, func(name any) bool { s, _ := name.(string); return strings.EqualFold(s, d.ID.Name()) })
		if i < 0 {
			return len(order)
		}
		return i
	}
	slices.SortStableFunc(children, func(a, b resource.Doc) int { return cmp.Compare(place(a), place(b)) })
}

func sameBody(a, b resource.Object) bool { return reflect.DeepEqual(a, b) }
