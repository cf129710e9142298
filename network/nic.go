package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

func interfaceType(cfg Config) resource.Type {
	return resource.Type{
		Name:      TypeInterface,
		CheckName: checkName,
		ReadOnly: []string{
			"cove", "properties.privateEndpoint", "properties.provisioningState", "properties.resourceGuid",
			"properties.virtualMachine", "properties.macAddress", "properties.primary",
		},
		Secret:  []string{"cove"},
		Located: true,
		Check:   checkInterface,
		Put:     putInterface,
		Delete:  deleteInterface,
		Show:    showInterface,
	}
}

var (
	interfaceUnobeyed = unobeyed{
		"enableIPForwarding": "IP forwarding is", "enableAcceleratedNetworking": "accelerated networking is", "disableTcpStateTracking": "a switch of TCP's states is",
		"auxiliaryMode": "auxiliary modes are", "dnsSettings.dnsServers": "DNS servers of single interfaces are", "dnsSettings.internalDnsNameLabel": "names of interfaces are",
	}
	configUnobeyed = unobeyed{
		"publicIPAddress": "public addresses are", "applicationSecurityGroups": "application security groups are", "gatewayLoadBalancer": "load balancers are",
		"loadBalancerBackendAddressPools": "load balancers are", "loadBalancerInboundNatRules": "load balancers are",
		"applicationGatewayBackendAddressPools": "application gateways are", "virtualNetworkTaps": "taps of networks are",
	}
)

// maxConfigs is how many addresses one interface may have.
const maxConfigs = 64

// ipConfig is one element of a network interface's ipConfigurations.
type ipConfig struct {
	name    string
	subnet  arm.ID
	static  bool
	address netip.Addr // what is wanted, or was given
	body    resource.Object
	at      string // where it stands in what was sent, "" where nothing was
}

func (i ipConfig) id(nic arm.ID) arm.ID { return nic.Child("ipConfigurations", i.name) }

// ipConfigs reads the list, and says what is wrong with it.
func ipConfigs(p *problems, body resource.Object) []ipConfig {
	const path = "properties.ipConfigurations"
	list := objectsAt(body, "properties", "ipConfigurations")
	if len(list) == 0 {
		p.add(path, "at least one is required")
	}
	if len(list) > maxConfigs {
		p.add(path, "at most %d are allowed", maxConfigs)
		return nil
	}
	var out []ipConfig
	names := map[string]bool{}
	for n, o := range list {
		at := fmt.Sprintf("%s[%d].", path, n)
		c := ipConfig{name: textAt(o, "name"), body: o, at: at}
		if why := checkName(c.name); why != "" {
			p.add(at+"name", "%s", why)
		}
		if key := strings.ToLower(c.name); names[key] {
			p.add(at+"name", "two have this name")
		} else {
			names[key] = true
		}
		c.subnet = p.reference(at+"properties.subnet.id", textAt(o, "properties", "subnet", "id"), TypeSubnet)
		c.static = p.oneOf(at+"properties.privateIPAllocationMethod", textAt(o, "properties", "privateIPAllocationMethod"), "Dynamic", "Static") == "Static"
		if v := textAt(o, "properties", "privateIPAddressVersion"); v != "" && !strings.EqualFold(v, "IPv4") {
			p.add(at+"properties.privateIPAddressVersion", "only IPv4 is supported in this version")
		}
		text := configAddress(o)
		a, err := netip.ParseAddr(text)
		switch {
		case text == "" && c.static:
			p.add(at+"properties.privateIPAddress", "a static address is required")
		case text != "" && (err != nil || !a.Is4()):
			p.add(at+"properties.privateIPAddress", "it is not an IPv4 address")
		default:
			c.address = a
		}
		out = append(out, c)
	}
	return out
}

// configAddress reads the address under the name that Azure writes and the
// one that its documentation queries by; what is shown has both.
func configAddress(o resource.Object) string {
	if s := textAt(o, "properties", "privateIPAddress"); s != "" {
		return s
	}
	return textAt(o, "properties", "privateIpAddress")
}

// storedConfigs reads what has been checked already.
func storedConfigs(body resource.Object) []ipConfig {
	var none problems
	return ipConfigs(&none, body)
}

func findConfig(l []ipConfig, name string) (ipConfig, bool) {
	for _, c := range l {
		if strings.EqualFold(c.name, name) {
			return c, true
		}
	}
	return ipConfig{}, false
}

func checkInterface(c *resource.Change) []fault.Field {
	var p problems
	checkGroupRef(&p, "properties.", objectAt(c.New.Body, "properties"))
	interfaceUnobeyed.refuse(&p, "properties.", objectAt(c.New.Body, "properties"))
	list := ipConfigs(&p, c.New.Body)
	for _, cfg := range list {
		configUnobeyed.refuse(&p, cfg.at+"properties.", objectAt(cfg.body, "properties"))
	}
	for _, cfg := range list {
		if !cfg.subnet.IsZero() && !list[0].subnet.IsZero() && !cfg.subnet.Parent().Equal(list[0].subnet.Parent()) {
			p.add("properties.ipConfigurations", "all subnets of an interface lie in one virtual network")
			break
		}
	}
	if c.Old == nil || len(p) > 0 || len(list) == 0 {
		return p
	}
	if was := storedConfigs(c.Old.Body); len(was) > 0 && !was[0].subnet.Parent().Equal(list[0].subnet.Parent()) {
		p.add("properties.ipConfigurations", "an interface stays in its virtual network")
	}
	return p
}

func putInterface(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	if c.Old != nil && !idAt(c.Old.Body, "properties", "privateEndpoint", "id").IsZero() {
		return ErrEndpointNIC
	}
	var was []ipConfig
	if c.Old != nil {
		was = storedConfigs(c.Old.Body)
	}
	var invalid problems
	list := ipConfigs(&invalid, c.New.Body)
	if err := fault.Problems(invalid); err != nil {
		return err
	}
	var before resource.Object
	if c.Old != nil {
		before = objectAt(c.Old.Body, "properties")
	}
	if err := mayJoinGroup(ctx, tx, c.Caller, c.New.ID, before, objectAt(c.New.Body, "properties")); err != nil {
		return err
	}
	if err := underGroup(ctx, tx, c.New.ID, before, objectAt(c.New.Body, "properties")); err != nil {
		return err
	}
	for i := range list {
		old, had := findConfig(was, list[i].name)
		if had && old.subnet.Equal(list[i].subnet) {
			continue
		}
		if err := may(c.Caller, ActionJoin, list[i].subnet); err != nil {
			return err
		}
	}
	return readdress(ctx, tx, c.New.ID, was, list)
}

// readdress gives back the addresses that an interface no longer has, takes
// those that are new to it and writes them into the bodies of now.
func readdress(ctx context.Context, tx resource.Tx, nic arm.ID, was, now []ipConfig) error {
	subnets := map[string]subnet{}
	load := func(id arm.ID) (subnet, error) {
		if s, ok := subnets[id.Key()]; ok {
			return s, nil
		}
		s, err := loadSubnet(ctx, tx, id)
		subnets[id.Key()] = s
		return s, err
	}
	keeps := func(old, c ipConfig) bool {
		return old.subnet.Equal(c.subnet) && old.address.IsValid() && (!c.static || c.address == old.address)
	}
	for _, old := range was {
		if c, still := findConfig(now, old.name); still && keeps(old, c) {
			continue
		}
		s, err := load(old.subnet)
		if err != nil {
			return err
		}
		if err := s.give(ctx, tx, old.address); err != nil {
			return err
		}
	}
	// Static ones first: a dynamic one must not take what the same body asks
	// for by name.
	var wrong []error
	for _, static := range []bool{true, false} {
		for i := range now {
			c := &now[i]
			if c.static != static {
				continue
			}
			s, err := load(c.subnet)
			if err != nil {
				return fault.At(c.at+"properties.subnet.id", err)
			}
			if old, had := findConfig(was, c.name); had && keeps(old, *c) {
				c.address = old.address
			} else {
				want, path := netip.Addr{}, "properties.subnet.id"
				if static {
					want, path = c.address, "properties.privateIPAddress"
				}
				if c.address, err = s.take(ctx, tx, want, c.id(nic)); err != nil {
					wrong = append(wrong, fault.At(c.at+path, err))
					continue
				}
			}
			c.write(s.id)
		}
	}
	return fault.All(wrong...)
}

// write puts what was decided into the element of the body.
func (i ipConfig) write(subnet arm.ID) {
	props, ok := i.body["properties"].(resource.Object)
	if !ok {
		props = resource.Object{}
		i.body["properties"] = props
	}
	for _, key := range []string{"privateIpAddress", "privateLinkConnectionProperties", "provisioningState"} {
		delete(props, key)
	}
	for _, key := range []string{"id", "type", "etag"} {
		delete(i.body, key)
	}
	method := "Dynamic"
	if i.static {
		method = "Static"
	}
	props["privateIPAllocationMethod"] = method
	props["privateIPAddressVersion"] = "IPv4"
	props["privateIPAddress"] = i.address.String()
	props["subnet"] = ref(subnet)
}

func deleteInterface(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	if pe := idAt(doc.Body, "properties", "privateEndpoint", "id"); !pe.IsZero() {
		return ErrEndpointNIC.Detail("Network interface '%s' belongs to the private endpoint '%s' and is deleted with it.", doc.ID.Name(), pe)
	}
	if code := textAt(doc.Body, "cove", "reservation"); code != "" {
		if err := tx.Delete(ctx, codeID(code)); err != nil {
			return err
		}
	}
	if err := underGroup(ctx, tx, doc.ID, objectAt(doc.Body, "properties"), nil); err != nil {
		return err
	}
	return readdress(ctx, tx, doc.ID, storedConfigs(doc.Body), nil)
}

func showInterface(_ context.Context, _ resource.Reader, doc resource.Doc, body resource.Object) error {
	set(body, "Succeeded", "properties", "provisioningState")
	set(body, resourceGUID(doc), "properties", "resourceGuid")
	for n, o := range objectsAt(body, "properties", "ipConfigurations") {
		o["id"] = ipConfig{name: textAt(o, "name")}.id(doc.ID).String()
		o["type"] = TypeInterface + "/ipConfigurations"
		o["etag"] = doc.ETag
		set(o, "Succeeded", "properties", "provisioningState")
		set(o, textAt(o, "properties", "privateIPAddress"), "properties", "privateIpAddress")
		if at(o, "properties", "primary") == nil {
			set(o, n == 0, "properties", "primary")
		}
	}
	return nil
}
