package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// The types of security groups.
const (
	TypeGroup = "Microsoft.Network/networkSecurityGroups"
	TypeRule  = TypeGroup + "/securityRules"
)

// actionJoinGroup is what putting a subnet or an interface under a group
// needs on the group.
const actionJoinGroup = TypeGroup + "/join/action"

var (
	ErrGroupInUse   = inUse("InUseNetworkSecurityGroupCannotBeDeleted", "the network security group is in use and cannot be deleted")
	ErrRuleConflict = fault.Coded(fault.Invalid, "SecurityRuleConflict", "two security rules have the same priority and direction")
)

// maxGroupRules is how many rules a group may have, and maxWords how many
// prefixes or port ranges one rule may list.
const (
	maxGroupRules = 1000
	maxWords      = 1000
)

func groupType(cfg Config) resource.Type {
	return resource.Type{
		Name: TypeGroup, CheckName: checkName, Located: true,
		ReadOnly: []string{
			"cove", "properties.defaultSecurityRules", "properties.subnets", "properties.networkInterfaces",
			"properties.provisioningState", "properties.resourceGuid",
		},
		Secret: []string{"cove"},
		Check:  cfg.checkGroup,
		Put:    putGroup,
		Delete: deleteGroup,
		Show:   showGroup,
	}
}

var ruleReadOnly = []string{"properties.provisioningState"}

func ruleType(cfg Config) resource.Type {
	return resource.Type{
		Name: TypeRule, CheckName: checkName,
		ReadOnly: ruleReadOnly,
		Check: func(c *resource.Change) []fault.Field {
			var p problems
			cfg.parseRule(&p, "", c.New.ID.Name(), objectAt(c.New.Body, "properties"))
			return p
		},
		Put: func(ctx context.Context, tx resource.Tx, c *resource.Change) error {
			docs, err := tx.List(ctx, resource.Query{Type: TypeRule, Under: c.New.ID.Parent()})
			if err != nil {
				return err
			}
			docs = slices.DeleteFunc(docs, func(d resource.Doc) bool { return d.ID.Equal(c.New.ID) })
			return fault.At("properties.priority", fitRules(append(docs, *c.New)))
		},
	}
}

func (cfg Config) checkGroup(c *resource.Change) []fault.Field {
	var p problems
	v := at(c.New.Body, "properties", "securityRules")
	if _, ok := v.([]any); v != nil && !ok {
		p.add("properties.securityRules", "it must be a list")
		return p
	}
	names := map[string]bool{}
	for i, o := range objectsAt(c.New.Body, "properties", "securityRules") {
		path := fmt.Sprintf("properties.securityRules[%d].", i)
		name := textAt(o, "name")
		if why := checkName(name); why != "" {
			p.add(path+"name", "%s", why)
		}
		if key := strings.ToLower(name); names[key] {
			p.add(path+"name", "two rules have this name")
		} else {
			names[key] = true
		}
		cfg.parseRule(&p, path, name, objectAt(o, "properties"))
	}
	if flush, _ := at(c.New.Body, "properties", "flushConnection").(bool); flush {
		p.add("properties.flushConnection", "is not needed: connections that a change forbids end at once")
	}
	return p
}

// parseRule reads a rule and spells its words as ARM does.
func (cfg Config) parseRule(p *problems, prefix, name string, props resource.Object) rule {
	path := prefix + "properties."
	if props == nil {
		p.add(prefix+"properties", "it must be an object")
		return rule{}
	}
	word := func(key string, words ...string) string {
		s := textAt(props, key)
		if s == "" {
			p.add(path+key, "it must be one of %s", strings.Join(words, ", "))
			return ""
		}
		if s = p.oneOf(path+key, s, words...); s != "" {
			props[key] = s
		}
		return s
	}
	r := rule{name: name}
	r.allow = word("access", "Allow", "Deny") == "Allow"
	r.inbound = word("direction", "Inbound", "Outbound") == "Inbound"
	r.protocol = protocols[word("protocol", "*", "Tcp", "Udp", "Icmp", "Esp", "Ah")]
	n, _ := props["priority"].(json.Number)
	priority, err := n.Int64()
	if err != nil || priority < 100 || priority > 4096 {
		p.add(path+"priority", "it must be a number from 100 to 4096")
	}
	r.priority = int(priority)
	r.from = cfg.places(p, path, "sourceAddressPrefix", "sourceAddressPrefixes", props)
	r.to = cfg.places(p, path, "destinationAddressPrefix", "destinationAddressPrefixes", props)
	r.fromPort = ports(p, path, "sourcePortRange", "sourcePortRanges", props)
	r.toPort = ports(p, path, "destinationPortRange", "destinationPortRanges", props)
	for _, key := range []string{"sourceApplicationSecurityGroups", "destinationApplicationSecurityGroups"} {
		if len(listAt(props, key)) > 0 {
			p.add(path+key, "application security groups are not in this version")
		}
	}
	return r
}

var protocols = map[string]uint8{"Icmp": 1, "Tcp": 6, "Udp": 17, "Esp": 50, "Ah": 51}

// words are a rule's property in its singular and its plural form.
func words(p *problems, path, one, many string, props resource.Object) (at string, out []string) {
	for _, v := range listAt(props, many) {
		s, _ := v.(string)
		out = append(out, s)
	}
	at = path + many
	if s := textAt(props, one); s != "" {
		if len(out) > 0 {
			p.add(path+one, "it cannot be given together with %s", many)
		}
		at, out = path+one, append(out, s)
	}
	if len(out) == 0 {
		p.add(path+one, "it is required; * is any")
	}
	if len(out) > maxWords {
		p.add(at, "at most %d are allowed", maxWords)
		return at, nil
	}
	return at, out
}

func (cfg Config) places(p *problems, path, one, many string, props resource.Object) places {
	var out places
	at, list := words(p, path, one, many, props)
	for _, s := range list {
		if s == "*" || s == "0.0.0.0/0" {
			out.any = true
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			out.prefixes = append(out.prefixes, netip.PrefixFrom(a, 32))
			continue
		}
		if pre, err := netip.ParsePrefix(s); err == nil && pre.Addr().Is4() {
			out.prefixes = append(out.prefixes, pre.Masked())
			continue
		}
		t, known := cfg.tag(s)
		if !known {
			p.add(at, "%.100q is neither *, nor an IPv4 address or range, nor a service tag that is known here", s)
			continue
		}
		out.tags = append(out.tags, t)
	}
	return out
}

// tag reads a service tag. AzureContainerRegistry.Region is that of one region;
// every region of this deployment answers at the same front end.
func (cfg Config) tag(s string) (tag, bool) {
	base, region, regional := strings.Cut(s, ".")
	if regional && strings.EqualFold(base, string(tagRegistry)) {
		return tagRegistry, slices.ContainsFunc(cfg.regions(), func(r string) bool { return strings.EqualFold(r, region) })
	}
	for _, t := range tags {
		if strings.EqualFold(s, string(t)) {
			return t, true
		}
	}
	return "", false
}

func ports(p *problems, path, one, many string, props resource.Object) []portRange {
	var out []portRange
	at, list := words(p, path, one, many, props)
	if slices.Contains(list, "*") {
		return nil
	}
	for _, s := range list {
		first, last, ranged := strings.Cut(s, "-")
		if !ranged {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			p.add(at, "%.40q is neither *, nor a port, nor a range such as 8000-8080", s)
			continue
		}
		out = append(out, portRange{uint16(a), uint16(b)})
	}
	return out
}

// fitRules refuses rules whose order nobody has said.
func fitRules(docs []resource.Doc) error {
	if len(docs) > maxGroupRules {
		return fault.Problems([]fault.Field{{Path: "properties.securityRules", Message: fmt.Sprintf("at most %d are allowed", maxGroupRules)}})
	}
	type place struct {
		inbound  bool
		priority string
	}
	seen := map[place]string{}
	for _, d := range docs {
		n, _ := at(d.Body, "properties", "priority").(json.Number)
		at := place{textAt(d.Body, "properties", "direction") == "Inbound", n.String()}
		if other, twice := seen[at]; twice {
			return ErrRuleConflict.Detail("Security rules %s and %s cannot have the same Priority and Direction.", other, d.ID.Name())
		}
		seen[at] = d.ID.Name()
	}
	return nil
}

// putGroup makes the group's rules what its body lists. A body without the
// property says nothing about them.
func putGroup(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	props := objectAt(c.New.Body, "properties")
	inline, listed := props["securityRules"]
	delete(props, "securityRules")
	if !listed || inline == nil {
		return nil
	}
	now, err := tx.List(ctx, resource.Query{Type: TypeRule, Under: c.New.ID})
	if err != nil {
		return err
	}
	var want []resource.Doc
	order := []any{}
	list, _ := inline.([]any)
	for _, v := range list {
		o, _ := v.(resource.Object)
		order = append(order, textAt(o, "name"))
		want = append(want, resource.Doc{ID: c.New.ID.Child("securityRules", textAt(o, "name")), Body: inlineBody(o, ruleReadOnly)})
	}
	if err := fitRules(want); err != nil {
		return fault.At("properties.securityRules", err)
	}
	set(c.New.Body, order, "cove", "rules")
	for _, old := range now {
		if !hasDoc(want, old.ID) {
			if err := tx.Delete(ctx, old.ID); err != nil {
				return err
			}
		}
	}
	for i := range want {
		old, err := tx.Get(ctx, want[i].ID)
		switch {
		case errors.Is(err, resource.ErrUnknown):
		case err != nil:
			return err
		case sameBody(old.Body, want[i].Body):
			continue
		default:
			want[i].ID, want[i].UID, want[i].ETag, want[i].Created = old.ID, old.UID, old.ETag, old.Created
		}
		if err := tx.Put(ctx, &want[i]); err != nil {
			return err
		}
	}
	return nil
}

// typeUse are documents that say which subnets and interfaces are under a
// group, so that nobody has to look through all that there are:
//
//	/providers/Cove.Network/groups/{hash of the group's id}/users/{hash of the user's}
//
// They are written and deleted in the transactions of the users.
const typeUse = "Cove.Network/groups/users"

func usersID(group arm.ID) arm.ID {
	return arm.MustID("/providers/Cove.Network/groups/" + hashed(group))
}

func hashed(id arm.ID) string {
	sum := sha256.Sum256([]byte(id.Key()))
	return hex.EncodeToString(sum[:16])
}

// underGroup notes which group a user's properties name now, and no longer.
func underGroup(ctx context.Context, tx resource.Tx, user arm.ID, old, now resource.Object) error {
	was, is := idAt(old, "networkSecurityGroup", "id"), idAt(now, "networkSecurityGroup", "id")
	if was.Key() == is.Key() {
		return nil
	}
	if !was.IsZero() {
		if err := tx.Delete(ctx, usersID(was).Child("users", hashed(user))); err != nil {
			return err
		}
	}
	if is.IsZero() {
		return nil
	}
	return tx.Put(ctx, &resource.Doc{ID: usersID(is).Child("users", hashed(user)), Body: resource.Object{"id": user.String()}})
}

// groupUsers are the subnets and interfaces under a group, up to limit of both
// together (0 is all).
func groupUsers(ctx context.Context, r resource.Reader, group arm.ID, limit int) (subnets, nics []arm.ID, err error) {
	docs, err := r.List(ctx, resource.Query{Type: typeUse, Under: usersID(group), Limit: limit})
	if err != nil {
		return nil, nil, err
	}
	for _, d := range docs {
		user := idAt(d.Body, "id")
		if strings.EqualFold(user.Type(), TypeSubnet) {
			subnets = append(subnets, user)
		} else {
			nics = append(nics, user)
		}
	}
	for _, list := range [][]arm.ID{subnets, nics} {
		slices.SortFunc(list, func(a, b arm.ID) int { return strings.Compare(a.Key(), b.Key()) })
	}
	return subnets, nics, nil
}

func deleteGroup(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	subnets, nics, err := groupUsers(ctx, tx, doc.ID, 1)
	if err != nil {
		return err
	}
	if used := slices.Concat(subnets, nics); len(used) > 0 {
		return ErrGroupInUse.Detail("Network security group %s cannot be deleted because it is in use by the following resources: %s.", doc.ID, used[0])
	}
	return nil
}

func showGroup(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	set(body, "Succeeded", "properties", "provisioningState")
	set(body, resourceGUID(doc), "properties", "resourceGuid")
	docs, err := r.List(ctx, resource.Query{Type: TypeRule, Under: doc.ID})
	if err != nil {
		return err
	}
	asListed(doc, "rules", docs)
	rules := make([]any, len(docs))
	for i, d := range docs {
		o := resource.Clone(d.Body)
		o["id"], o["name"], o["type"], o["etag"] = d.ID.String(), d.ID.Name(), TypeRule, d.ETag
		set(o, "Succeeded", "properties", "provisioningState")
		rules[i] = o
	}
	set(body, rules, "properties", "securityRules")
	set(body, shownDefaults(doc.ID), "properties", "defaultSecurityRules")
	subnets, nics, err := groupUsers(ctx, r, doc.ID, 0)
	if err != nil {
		return err
	}
	for key, ids := range map[string][]arm.ID{"subnets": subnets, "networkInterfaces": nics} {
		if len(ids) > 0 {
			refs := make([]any, len(ids))
			for i, id := range ids {
				refs[i] = ref(id)
			}
			set(body, refs, "properties", key)
		}
	}
	return nil
}

func shownDefaults(group arm.ID) []any {
	end := func(p places) string {
		if p.any {
			return "*"
		}
		return string(p.tags[0])
	}
	out := make([]any, len(defaultRules))
	for i, r := range defaultRules {
		access, direction := "Deny", "Outbound"
		if r.allow {
			access = "Allow"
		}
		if r.inbound {
			direction = "Inbound"
		}
		out[i] = resource.Object{
			"id": group.String() + "/defaultSecurityRules/" + r.name, "name": r.name, "type": TypeGroup + "/defaultSecurityRules",
			"properties": resource.Object{
				"access": access, "direction": direction, "priority": json.Number(strconv.Itoa(r.priority)), "protocol": "*",
				"sourcePortRange": "*", "destinationPortRange": "*",
				"sourceAddressPrefix": end(r.from), "destinationAddressPrefix": end(r.to), "provisioningState": "Succeeded",
			},
		}
	}
	return out
}

// mayJoinGroup checks the group that a subnet's or an interface's properties
// name, where it is another than before: it must be there, in the same
// subscription, and the caller may use it.
func mayJoinGroup(ctx context.Context, r resource.Reader, by resource.Caller, of arm.ID, old, now resource.Object) error {
	text := textAt(now, "networkSecurityGroup", "id")
	if text == "" || strings.EqualFold(text, textAt(old, "networkSecurityGroup", "id")) {
		return nil
	}
	id := idAt(now, "networkSecurityGroup", "id")
	if err := may(by, actionJoinGroup, id); err != nil {
		return err
	}
	_, err := r.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) || !strings.EqualFold(id.Subscription(), of.Subscription()) {
		return fault.At("properties.networkSecurityGroup.id", ErrReference.Detail("The network security group '%s' was not found in the subscription of '%s'.", id, of.Name()))
	}
	return err
}

// checkGroupRef checks that a body names a group, if anything.
func checkGroupRef(p *problems, path string, props resource.Object) {
	if v := props["networkSecurityGroup"]; v != nil {
		p.reference(path+"networkSecurityGroup.id", textAt(props, "networkSecurityGroup", "id"), TypeGroup)
	}
}

func (cfg Config) regions() []string {
	if len(cfg.Regions) == 0 {
		return []string{"local"}
	}
	return cfg.Regions
}
