package fsm

import (
	"fmt"
	"time"
)

// Degradation is since when, and why, commits wait for nobody: what was acknowledged since may be on the primary alone.
type Degradation struct {
	Since    time.Time `json:"since"` // proposer's wall clock, for people only
	Index    uint64    `json:"index"`
	Cause    string    `json:"cause"`
	Position string    `json:"position"` // where the primary was when it began, "" when that is not known
}

// noteDegraded keeps Degraded true: before is the state that the command c was applied to. What is degraded stays so while nobody is primary.
func (s *State) noteDegraded(before State, c Command, index uint64) {
	switch {
	case s.Sync.Acks > 0:
		s.Degraded = nil
	case c.Bootstrap != nil:
		s.Degraded = &Degradation{Since: c.At, Index: index, Cause: "a new cluster: no replica has caught up yet"}
	case c.Promote != nil:
		s.Degraded = &Degradation{Since: c.At, Index: index, Cause: fmt.Sprintf("%s was promoted, and nobody else could acknowledge", c.Promote.To), Position: c.Promote.Position}
	case c.Complete != nil && before.Change != nil && before.Sync.Acks > 0:
		s.Degraded = &Degradation{Since: c.At, Index: index, Cause: before.Change.Cause, Position: c.Complete.Position}
	}
}
