package proxy

import (
	"fmt"
	"strconv"
	"strings"

	"cove.example/cove/fault"
)

// ID names a private link of a cloud: azure:0x0000002a, aws:vpce-0a1b2c3d.
// There is one way to write each, which ParseID returns.
type ID string

// Azure is the id of an Azure private endpoint: the linkIdentifier that the
// Private Link service shows for its connection.
func Azure(link uint32) ID { return ID(fmt.Sprintf("azure:0x%08x", link)) }

// maxAWS is far above the 22 characters that such an id has.
const maxAWS = 64

func aws(id string) (ID, bool) {
	tail, ok := strings.CutPrefix(id, "vpce-")
	if !ok || tail == "" || len(id) > maxAWS || strings.Trim(tail, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		return "", false
	}
	return ID("aws:" + id), true
}

// ParseID reads an id as people write it. Azure shows the number of a link in
// decimal, its documentation and packet dumps have it in hexadecimal.
func ParseID(s string) (ID, error) {
	if text, ok := strings.CutPrefix(s, "azure:"); ok {
		base, digits := 10, text
		if hex, ok := strings.CutPrefix(text, "0x"); ok {
			base, digits = 16, hex
		}
		if n, err := strconv.ParseUint(digits, base, 32); err == nil {
			return Azure(uint32(n)), nil
		}
	} else if text, ok := strings.CutPrefix(s, "aws:"); ok {
		if id, ok := aws(text); ok {
			return id, nil
		}
	}
	return "", fault.Newf(fault.Invalid, "%.80q is neither azure:NUMBER, the linkIdentifier of an Azure private endpoint, nor aws:vpce-…", s)
}
