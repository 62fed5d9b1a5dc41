package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestEveryKeyIsAlwaysThere marshals zero values: a script may read every key without asking first,
// and iterate every list.
func TestEveryKeyIsAlwaysThere(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{Status{}, `{"cluster":"","verdict":"","failures_tolerated":0,"why":[],"if_primary_died":"","epoch":0,"primary":"",` +
			`"primary_since":null,"leader":"","phase":"","mode":"","paused":false,"pause":null,"next":[],"degraded":false,"degraded_since":null,"degraded_why":"","disks_survived":0,"lossy_epoch":0,"vips":[],` +
			`"sync":{"set":[],"acks":0,"min_replicas":0,"change":null},"nodes":[],"operation":null,"last_incident":null,"gate_kernel":false,` +
			`"told_by":"","age_ms":0}`},
		{Node{}, `{"id":"","role":"","health":"","server":"","version":"","writable":false,"gtid":"","lag_seconds":null,` +
			`"lease_ms":0,"voter":false,"sync":"","note":"","rebuild":null}`},
		{Result{}, `{"outcome":"","operation":"0","rule":"","node":"","value":"","threshold":"","message":"","phases":[],"plan":null,"risk":null}`},
		{Plan{}, `{"from":"","to":"","steps":[],"gates":[],"pause_ms":0,"prepare_ms":0,"phases":[],"token":""}`},
		{Operation{}, `{"id":"0","kind":"","from":"","to":"","step":"","actor":"","started":null,"elapsed_ms":0,"limit_ms":0,"phases":[]}`},
		{Incident{}, `{"id":"0","kind":"","from":"","to":"","epoch":0,"cause":"","actor":"","started":null,"phases":[],` +
			`"write_gap_ms":null,"outcome":"","lossy":false,"timeline":[]}`},
		{Risk{}, `{"primary":"","degraded_since":null,"degraded_why":"","position":"","seen_by":"","age_ms":null,"nodes":[]}`},
		{RiskNode{}, `{"id":"","position":"","missing":null,"error":""}`},
		{SyncChange{}, `{"kind":"","node":"","acks":0,"cause":"","since":null}`},
		{History{}, `{"incidents":[]}`},
		{WhyNot{}, `{"node":"","eligible":false,"verdicts":[]}`},
		{Verdict{}, `{"rule":"","node":"","ok":false,"value":"","threshold":"","why":""}`},
		{Pause{}, `{"by":"","why":"","since":null,"until":null}`},
		{ErrorBody{}, `{"error":"","how":""}`},
	} {
		data, err := json.Marshal(c.value)
		if err != nil {
			t.Fatal(err)
		}
		if string(data) != c.want {
			t.Errorf("%T is\n%s, want\n%s", c.value, data, c.want)
		}
	}
}

// TestEveryFieldHasASnakeCaseKey fails for a field somebody adds without a tag, or with omitempty.
func TestEveryFieldHasASnakeCaseKey(t *testing.T) {
	for _, v := range []any{Status{}, VIP{}, Sync{}, Node{}, Pause{}, Result{}, Phase{}, Plan{}, Operation{}, Incident{}, Event{},
		Verdict{}, BootstrapRequest{}, SwitchoverRequest{}, FailoverRequest{}, Risk{}, RiskNode{}, SyncChange{}, PauseRequest{}, ResumeRequest{}, RebuildRequest{}, RejoinRequest{}, Rebuild{}, History{}, WhyNot{}, ErrorBody{}} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			tag := typ.Field(i).Tag.Get("json")
			key, option, _ := strings.Cut(tag, ",")
			if key == "" || key != strings.ToLower(key) || strings.Contains(key, "-") || option != "" && option != "string" {
				t.Errorf("%s.%s has the tag %q", typ.Name(), typ.Field(i).Name, tag)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	lag, gap := 0.25, 18.5
	in := Status{Cluster: "shop", Verdict: StandingHealthy, Epoch: 42, PrimarySince: At(time.UnixMilli(1700000000123)),
		VIPs: []VIP{{Address: "10.77.0.100", Holder: "db1"}}, Why: []string{}, Next: []string{},
		Sync: Sync{Set: []string{"db2"}, Acks: 1}, Nodes: []Node{{ID: "db2", LagSeconds: &lag}},
		Operation: &Operation{ID: 1<<63 + 1, Phases: []Phase{{Name: "fence", MS: 0.3}}},
		LastIncident: &Incident{ID: 17, WriteGapMS: &gap, Phases: []Phase{}, Outcome: OutcomeDone,
			Timeline: []Event{{MS: -1, Node: "db1", Text: "lost"}}}}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Status
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("in  %+v\nout %+v", in, out)
	}
	if !strings.Contains(string(data), `"9223372036854775809"`) {
		t.Errorf("a 64-bit id is not a string: %s", data)
	}
}

func TestTimeIsUTC(t *testing.T) {
	zone := time.FixedZone("elsewhere", 5*3600)
	data, err := json.Marshal(At(time.Date(2026, 11, 23, 19, 3, 7, 4e6, zone)))
	if err != nil || string(data) != `"2026-11-23T14:03:07.004Z"` {
		t.Errorf("got %s, %v", data, err)
	}
	for _, bad := range []string{`"yesterday"`, `12`, `{}`} {
		var x Time
		if err := json.Unmarshal([]byte(bad), &x); err == nil {
			t.Errorf("%s was read as %v", bad, x)
		}
	}
}

func TestParseAddrs(t *testing.T) {
	for in, want := range map[string]string{
		"db1":                "db1:7948",
		"db1:1":              "db1:1",
		"db1, db2:99":        "db1:7948,db2:99",
		"10.77.0.1":          "10.77.0.1:7948",
		"fd77::1":            "[fd77::1]:7948",
		"[fd77::1]":          "[fd77::1]:7948",
		"[fd77::1]:5":        "[fd77::1]:5",
		"":                   "error",
		"db1,":               "error",
		":7948":              "error",
		"db1:0":              "error",
		"db1:http":           "error",
		"db1:1:2":            "error",
		"http://db1:7948":    "error",
		"db1:7948/v1/status": "error",
	} {
		addrs, err := ParseAddrs(in)
		got := strings.Join(addrs, ",")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q gives %q (%v), want %q", in, got, err, want)
		}
	}
}
