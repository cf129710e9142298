package dnsapi

import (
	"errors"
	"strings"

	"github.com/miekg/dns"
)

// maxChain bounds the CNAME records of another resolver's answer.
const maxChain = 8

var errChain = errors.New("the other resolver's chain of CNAME records is a circle or too long")

// follow takes from another resolver's answer what answers the question for
// name, in order: CNAME records from name on, and the records of the type at
// the end of them, with their signatures. What else an answer holds is not
// asked for, and would be a way to plant names in who asked; of a name of our
// own nobody else has a say, so the chain ends there, and end is that name, or
// "". got is not modified: it may be another asker's too.
func follow(got *dns.Msg, name string, qtype uint16, ours func(string) bool) (chain []dns.RR, end string, err error) {
	at, first := name, true
	for range maxChain + 1 {
		if !first && ours(at) {
			return chain, at, nil
		}
		first = false
		var cname *dns.CNAME
		found := false
		for _, r := range got.Answer {
			h := r.Header()
			if h.Class != dns.ClassINET {
				continue
			}
			if d, ok := r.(*dns.DNAME); ok && dns.IsSubDomain(d.Hdr.Name, at) && !ours(d.Hdr.Name) {
				chain = append(chain, r) // the signed reason of the CNAME beside it
				found = found || qtype == dns.TypeDNAME && strings.EqualFold(h.Name, at)
				continue
			}
			if !strings.EqualFold(h.Name, at) {
				continue
			}
			if c, ok := r.(*dns.CNAME); ok && qtype != dns.TypeCNAME {
				if cname == nil {
					cname = c
					chain = append(chain, named(r, at))
				}
				continue
			}
			if s, ok := r.(*dns.RRSIG); ok && (s.TypeCovered == qtype || s.TypeCovered == dns.TypeCNAME || qtype == dns.TypeRRSIG) || h.Rrtype == qtype {
				chain = append(chain, named(r, at))
				found = found || h.Rrtype == qtype
			}
		}
		if found || cname == nil {
			return chain, "", nil
		}
		at = cname.Target
	}
	return nil, "", errChain
}

// named is r with its owner spelled as it was asked for.
func named(r dns.RR, owner string) dns.RR {
	if r.Header().Name == owner {
		return r
	}
	r = dns.Copy(r)
	r.Header().Name = owner
	return r
}

// absence is what another resolver's answer says about why there is nothing:
// its SOA record and what proves the absence, where that is not about names of
// our own.
func absence(got *dns.Msg, ours func(string) bool) (out []dns.RR) {
	for _, r := range got.Ns {
		switch r.Header().Rrtype {
		case dns.TypeSOA, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG:
			if r.Header().Class == dns.ClassINET && !ours(r.Header().Name) {
				out = append(out, r)
			}
		}
	}
	return out
}
