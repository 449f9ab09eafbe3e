package store

// keyForwarding has what the host's IPv6 was like before the driver switched
// forwarding on.
const keyForwarding = "ipv6-forwarding"

// Forwarding reads what [Store.SaveForwarding] wrote; nil where there is nothing.
func (s *Store) Forwarding() ([]byte, error) {
	c, err := s.read()
	if err != nil {
		return nil, s.wrap(err)
	}
	text, _ := find(c.entries, bucketMeta, keyForwarding)
	return text, nil
}

// SaveForwarding replaces the record of the host's IPv6 forwarding, an empty one
// for none; see [Store.Save].
func (s *Store) SaveForwarding(text []byte) error {
	if text == nil {
		text = []byte{}
	}
	return s.write(&unit{changes: []change{{place{bucketMeta, keyForwarding}, text}}})
}
