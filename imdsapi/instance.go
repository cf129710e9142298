package imdsapi

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"cove.example/cove/resource"
)

var errFormat = &refusal{http.StatusBadRequest, "invalid_request", "What has parts is answered in the format json, one value in the format text"}

// instance is what a member may know of itself, or the part of it that a path
// names: JSON, or with format=text one value. What cove does not know of a
// machine (its image, its disks) is not there.
func (m member) instance(path, format string) (any, error) {
	value := any(m.facts())
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		switch v := value.(type) {
		case map[string]any:
			found := false
			for key, inner := range v {
				if strings.EqualFold(key, name) {
					value, found = inner, true
				}
			}
			if !found {
				return nil, errPath
			}
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v) {
				return nil, errPath
			}
			value = v[i]
		default:
			return nil, errPath
		}
	}
	// One value is answered as it stands; what has parts is JSON.
	text, isText := value.(string)
	switch {
	case isText && format != "json":
		return text, nil
	case !isText && format != "text":
		return value, nil
	}
	return nil, errFormat
}

// facts are true of the member: a machine is known by its place in a network.
func (m member) facts() map[string]any {
	location, _ := m.nic.Body["location"].(string)
	id := m.doc.ID
	return map[string]any{
		"compute": map[string]any{
			"azEnvironment": "cove", "location": location, "name": id.Name(), "provider": "Cove.Network",
			"resourceGroupName": id.Group(), "resourceId": id.String(), "subscriptionId": id.Subscription(), "vmId": m.doc.UID,
			"tags": tagText(m.nic.Body), "tagsList": tagList(m.nic.Body),
		},
		"network": map[string]any{"interface": []any{map[string]any{"ipv4": map[string]any{
			"ipAddress": []any{map[string]any{"privateIpAddress": m.at.Address.String(), "publicIpAddress": ""}},
		}}}},
	}
}

// tagText is how the real service writes tags on one line.
func tagText(body resource.Object) string {
	var out []string
	for _, t := range tagList(body) {
		one := t.(map[string]any)
		out = append(out, one["name"].(string)+":"+one["value"].(string))
	}
	return strings.Join(out, ";")
}

// tagList are the interface's tags: those of the machine that has it.
func tagList(body resource.Object) []any {
	tags, _ := body["tags"].(resource.Object)
	out := []any{}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		value, _ := tags[name].(string)
		out = append(out, map[string]any{"name": name, "value": value})
	}
	return out
}
