package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The JSON of documents is read and written here, and not by encoding/json's
// reflection, because a page of a list is a thousand documents. What is
// unusual is left to encoding/json, and the fuzz tests compare the two.

// Append appends v as JSON: objects with their names in order, characters as
// they are. It writes what encoding/json would, but for <, > and &, which it
// leaves alone.
func Append(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case json.Number:
		if v != "" && v[0] != '0' && strings.Trim(string(v), "0123456789") == "" {
			return append(b, v...), nil
		}
	case Object:
		if v != nil {
			return appendObject(b, v)
		}
	case []any:
		return appendList(b, v, v == nil)
	case []Object:
		return appendList(b, v, v == nil)
	case []string:
		return appendList(b, v, v == nil)
	}
	return appendOther(b, v)
}

func appendObject(b []byte, o Object) ([]byte, error) {
	var few [24]string
	names := few[:0]
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	var err error
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendString(b, name); err != nil {
			return b, err
		}
		b = append(b, ':')
		if b, err = Append(b, o[name]); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendList[T any](b []byte, list []T, isNil bool) ([]byte, error) {
	if isNil {
		return append(b, "null"...), nil
	}
	var err error
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = Append(b, v); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func appendString(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return appendOther(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"'), nil
}

func appendOther(b []byte, v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return b, err
	}
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...), nil
}

// Encode is the text that a body is stored and compared by: the same for
// equal bodies.
func Encode(o Object) ([]byte, error) {
	b, err := Append(nil, o)
	if err != nil {
		return nil, fmt.Errorf("encode a resource: %w", err)
	}
	return b, nil
}

// Decode reads what Encode wrote. Numbers stay the text that they were.
func Decode(b []byte) (Object, error) {
	d := decoder{text: b}
	v, err := d.value(0)
	if d.space(); err == nil && d.at < len(b) {
		err = errText
	}
	if err != nil {
		return nil, fmt.Errorf("decode a resource: %w at byte %d", err, d.at)
	}
	if v == nil {
		return nil, nil
	}
	o, ok := v.(Object)
	if !ok {
		return nil, fmt.Errorf("decode a resource: %w: it is no object", errText)
	}
	return o, nil
}

var errText = errors.New("the text is not what was written")

// maxNesting is deeper than any body that is taken.
const maxNesting = 1000

type decoder struct {
	text []byte
	at   int
}

func (d *decoder) space() {
	for d.at < len(d.text) && (d.text[d.at] == ' ' || d.text[d.at] == '\n' || d.text[d.at] == '\t' || d.text[d.at] == '\r') {
		d.at++
	}
}

// next skips space and takes c, if it is there.
func (d *decoder) next(c byte) bool {
	d.space()
	if d.at < len(d.text) && d.text[d.at] == c {
		d.at++
		return true
	}
	return false
}

func (d *decoder) word(w string, v any) (any, error) {
	if !bytes.HasPrefix(d.text[d.at:], []byte(w)) {
		return nil, errText
	}
	d.at += len(w)
	return v, nil
}

func (d *decoder) value(depth int) (any, error) {
	d.space()
	if d.at == len(d.text) || depth > maxNesting {
		return nil, errText
	}
	switch c := d.text[d.at]; c {
	case '{':
		return d.object(depth)
	case '[':
		return d.list(depth)
	case '"':
		return d.string()
	case 't':
		return d.word("true", true)
	case 'f':
		return d.word("false", false)
	case 'n':
		return d.word("null", nil)
	}
	from := d.at
	for d.at < len(d.text) && strings.IndexByte("+-.0123456789Ee", d.text[d.at]) >= 0 {
		d.at++
	}
	number := d.text[from:d.at]
	if len(number) == 0 || !json.Valid(number) {
		return nil, errText
	}
	return json.Number(number), nil
}

func (d *decoder) object(depth int) (any, error) {
	d.at++
	o := make(Object, 8)
	if d.next('}') {
		return o, nil
	}
	for {
		d.space()
		name, err := d.string()
		if err != nil {
			return nil, err
		}
		if !d.next(':') {
			return nil, errText
		}
		if o[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
		if d.next(',') {
			continue
		}
		if !d.next('}') {
			return nil, errText
		}
		return o, nil
	}
}

func (d *decoder) list(depth int) (any, error) {
	d.at++
	list := []any{}
	if d.next(']') {
		return list, nil
	}
	for {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if d.next(',') {
			continue
		}
		if !d.next(']') {
			return nil, errText
		}
		return list, nil
	}
}

func (d *decoder) string() (string, error) {
	if d.at == len(d.text) || d.text[d.at] != '"' {
		return "", errText
	}
	from, plain := d.at, true
	for d.at++; d.at < len(d.text); d.at++ {
		switch c := d.text[d.at]; {
		case c == '"':
			d.at++
			if plain {
				return common(d.text[from+1 : d.at-1]), nil
			}
			var s string
			err := json.Unmarshal(d.text[from:d.at], &s)
			return s, err
		case c == '\\':
			d.at++
			plain = false
		case c < ' ' || c >= utf8.RuneSelf:
			plain = false
		}
	}
	return "", errText
}

// words are the texts that nearly every document has; they are not made anew
// for each.
var words = func() map[string]string {
	m := map[string]string{}
	for w := range strings.FieldsSeq(`location tags sku name tier identity type properties kind zones id status action value days retentionDays
		Enabled Disabled enabled disabled Allow Deny None Premium Standard Basic AzureServices Notary IPv4 LegacyRegistryPermissions
		adminUserEnabled anonymousPullEnabled creationDate dataEndpointEnabled dataEndpointHostNames encryption endpointProtocol loginServer
		metadataSearch networkRuleBypassAllowedForTasks networkRuleBypassOptions networkRuleSet defaultAction ipRules virtualNetworkRules
		policies azureADAuthenticationAsArmPolicy exportPolicy quarantinePolicy retentionPolicy softDeletePolicy trustPolicy
		privateEndpointConnections privateEndpoint privateLinkServiceConnectionState description actionsRequired publicNetworkAccess
		regionalEndpoints roleAssignmentMode zoneRedundancy provisioningState Succeeded addressPrefix addressPrefixes addressSpace subnets
		roleDefinitionId principalId principalType ServicePrincipal createdOn createdBy updatedOn updatedBy ttl fqdn isAutoRegistered
		aRecords ipv4Address registrationEnabled virtualNetwork resolutionPolicy Default global`) {
		m[w] = w
	}
	return m
}()

func common(b []byte) string {
	if w, ok := words[string(b)]; ok {
		return w
	}
	return string(b)
}
