package loginapi

// Routes are the routes that serve, below /{tenant} and below /adfs:
// "GET {tenant}/discovery/keys".
func Routes() (out []string) {
	for _, r := range routes {
		if r.tenant {
			out = append(out, r.method+" {tenant}"+r.path)
		}
		if r.adfs {
			out = append(out, r.method+" adfs"+r.path)
		}
	}
	return out
}
