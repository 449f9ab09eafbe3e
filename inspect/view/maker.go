package view

import "nftnet/inspect"

// Maker is an [inspect.Maker]: who most likely made a table or chain.
type Maker struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Backend string `json:"backend,omitempty"`
	Because string `json:"because"`
}

func makerOf(m *inspect.Model, o inspect.Object) *Maker {
	k, ok := m.Maker(o)
	if !ok {
		return nil
	}
	return &Maker{k.Name, k.Version, k.Backend, k.Because}
}
