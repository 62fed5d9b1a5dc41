package api

import "encoding/json"

// Risk is what is known of the acknowledged writes that go with a primary which is given up. What is not known is said to be so, never guessed.
type Risk struct {
	// Primary is the last primary, DegradedSince when it began to acknowledge what nobody else held: null when it did not.
	Primary       string `json:"primary"`
	DegradedSince Time   `json:"degraded_since"`
	DegradedWhy   string `json:"degraded_why"`
	// Position is the newest position of the primary that any node saw, "" when none is known; SeenBy saw it so long ago.
	// It may have gone on from there.
	Position string   `json:"position"`
	SeenBy   string   `json:"seen_by"`
	AgeMS    *float64 `json:"age_ms"`
	// Nodes are the other data nodes; a node that did not answer has Error.
	Nodes []RiskNode `json:"nodes"`
}

// RiskNode is one node that could be promoted.
type RiskNode struct {
	ID string `json:"id"`
	// Position is all it received.
	Position string `json:"position"`
	// Missing is how many transactions of Risk.Position it lacks, at least; null when that cannot be told.
	Missing *uint64 `json:"missing"`
	// Error is why it did not answer, "" when it did.
	Error string `json:"error"`
}

// MarshalJSON writes every list as a list, never null.
func (r Risk) MarshalJSON() ([]byte, error) {
	type plain Risk
	r.Nodes = list(r.Nodes)
	return json.Marshal(plain(r))
}
