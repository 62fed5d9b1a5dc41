package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// timeLayout is RFC 3339 with milliseconds, always in UTC: mixed zones in one incident mislead people.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Time is an instant on the wire: RFC 3339 in UTC with milliseconds, null for the zero value.
// It is for people and reports; nothing compares instants of two machines.
type Time struct{ time.Time }

// At makes a Time of t.
func At(t time.Time) Time { return Time{t.UTC()} }

// MarshalJSON writes the instant in UTC, or null for the zero value.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(t.UTC().Format(timeLayout))
}

// UnmarshalJSON reads RFC 3339 in any zone, or null. The error names the value it could not read.
func (t *Time) UnmarshalJSON(data []byte) error {
	var text *string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("reading an instant: %w", err)
	}
	if text == nil {
		*t = Time{}
		return nil
	}
	parsed, err := time.Parse(time.RFC3339Nano, *text)
	if err != nil {
		return fmt.Errorf("reading instant %q: %w", *text, err)
	}
	*t = At(parsed)
	return nil
}
