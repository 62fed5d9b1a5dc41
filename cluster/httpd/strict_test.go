package httpd

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/highbase/highbase/cluster/api"
)

// FuzzDecodeStrict holds the decoder against encoding/json with its strictest settings: what we accept
// it accepts with the same value, and no key is there twice or in another case.
func FuzzDecodeStrict(f *testing.F) {
	for _, seed := range []string{
		`{"to":"db2","plan":true}`, `{"to":"db2","to":"db3"}`, `{"TO":"db2"}`, `{"to":null}`, `{} {}`, `{`, `[]`, ``,
		"{\"to\":\"\xff\"}", `{"to":"\ud800"}`, `{"plan":1}`, `{"to":"a",}`, `{"to" "a"}`, `{"to":{"to":"x"}}`, "\ufeff{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var ours, theirs api.SwitchoverRequest
		if decodeStrict(data, &ours) != nil {
			return
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&theirs); err != nil {
			t.Fatalf("accepted %q, encoding/json says %v", data, err)
		}
		if ours != theirs {
			t.Fatalf("%q: %+v, encoding/json has %+v", data, ours, theirs)
		}
		var exact map[string]json.RawMessage
		if err := json.Unmarshal(data, &exact); err != nil {
			t.Fatal(err)
		}
		for key := range exact {
			switch key {
			case "from", "to", "plan", "actor":
			default:
				t.Fatalf("accepted key %q in %q", key, data)
			}
		}
	})
}
