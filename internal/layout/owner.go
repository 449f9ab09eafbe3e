package layout

import (
	"strings"
)

// Owner says to whom a rule or an element belongs: a network, and where it is
// an endpoint's, the endpoint too. It is kept in the comment, so that a live
// ruleset tells by itself what each part is for.
type Owner struct {
	// Network and Endpoint are Docker's ids, cut to 12 digits.
	Network, Endpoint string
}

// ownerDigits is how much of an id a comment carries: what Docker itself shows.
const ownerDigits = 12

// NewOwner is the owner of these ids; endpoint may be empty.
func NewOwner(network, endpoint string) Owner { return Owner{short(network), short(endpoint)} }

func short(id string) string {
	if len(id) > ownerDigits {
		return id[:ownerDigits]
	}
	return id
}

// Comment writes the owner as it stands in a comment.
func (o Owner) Comment() string {
	if o.Endpoint == "" {
		return "net=" + o.Network
	}
	return "net=" + o.Network + " ep=" + o.Endpoint
}

// ParseOwner reads an owner back from a comment; false where the comment is not
// what [Owner.Comment] writes: people write comments too.
func ParseOwner(comment string) (Owner, bool) {
	network, endpoint, _ := strings.Cut(strings.TrimPrefix(comment, "net="), " ep=")
	o := Owner{network, endpoint}
	if !isID(network) || endpoint != "" && !isID(endpoint) || o.Comment() != comment {
		return Owner{}, false
	}
	return o, true
}

// RedirectComment says that a rule or an element belongs to a host redirect.
func RedirectComment(name string) string { return "redirect=" + name }

func isID(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}
