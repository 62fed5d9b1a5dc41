package fsm

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"unsafe"
)

// commandSeeds is one command of every kind, in the forms that the tests of this package commit.
func commandSeeds(t testing.TB) []Command {
	settings, err := Profile("fast")
	if err != nil {
		t.Fatal(err)
	}
	a := Answer{Node: "db1", Epoch: 1, Incarnation: "i-db1", Received: "0-1-100", LastEpoch: 1, Held: 1}
	return []Command{
		{At: sceneWall, Bootstrap: &Bootstrap{ClusterID: "c1", Cluster: "shop", Server: "mariadb", Members: data("db1", "db2"), Settings: settings, Primary: "db1"}},
		{At: sceneWall, Begin: &Begin{Kind: KindTakeover, Epoch: 1, Cause: "lost", Exclude: "db2"}},
		{Begin: &Begin{Kind: KindFailover, Epoch: 2, OpID: 2}},
		{Fence: &Fence{OpID: 2, Epoch: 2, Evidence: Evidence{Kind: EvidenceLease, Node: "db1"}}},
		{Promote: &Promote{OpID: 2, Epoch: 2, To: "db2", Won: WonCount, Members: []SyncMember{{Node: "db1"}, {Node: "db3", Incarnation: "i-db3"}}, Acks: 1,
			Answers: []Answer{{Node: "db2", Epoch: 2, Incarnation: "i-db2"}, {Node: "db3", Epoch: 2, Incarnation: "i-db3"}}}},
		{Promote: &Promote{OpID: 2, Epoch: 1, To: "db2", Won: WonSwitchover, Members: []SyncMember{{Node: "db1"}, {Node: "db3"}}, Acks: 1, Release: &a}},
		{Settle: &Settle{OpID: 2, Epoch: 2, Phases: []PhaseTime{{Name: "drain", Took: ms}}}},
		{At: sceneWall, Restart: &Restart{Epoch: 1, Attempt: 1, Cause: "down"}},
		{Restarted: &Restarted{OpID: 2, Epoch: 1}},
		{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}},
		{Release: &Release{OpID: 2, Epoch: 1}},
		{Rollback: &Rollback{OpID: 2, Epoch: 1, Reason: "late"}},
		{Recount: &Recount{Epoch: 1, Node: "db2", Incarnation: "again"}},
		{Grow: &Grow{Epoch: 1, Node: "db3", Incarnation: "i-db3"}},
		{At: sceneWall, Intend: &Intend{Epoch: 1, Kind: ChangeShrink, Node: "db3", Cause: "is out of reach"}},
		{At: sceneWall, Intend: &Intend{Epoch: 1, Kind: ChangeAcks, Acks: 0, Cause: "nobody is left"}},
		{Complete: &Complete{Epoch: 1, Index: 6, Position: "0-1-100", Holders: []SyncMember{{Node: "db2", Incarnation: "i-db2"}}, Gated: true}},
		{Abandon: &Abandon{Epoch: 1, Index: 6, Reason: "late"}},
		{At: sceneWall, AcceptLoss: &AcceptLoss{OpID: 2, Epoch: 2, To: "db3", Vouched: true, Actor: "ann"}},
		{SetPause: &SetPause{Paused: true, By: "ann"}},
		{Rebuild: &Rebuild{Node: "db3", Donor: "db2", Epoch: 1, Cause: RebuildErrant}},
		{Rebuild: &Rebuild{Node: "db3", Donor: "db1", Epoch: 1, Cause: RebuildAsked, Actor: "ann", Confirmed: true}},
		{Rebuilt: &Rebuilt{Node: "db3", Index: 7, Outcome: OutcomeDone}},
	}
}

// stages is a state at each step of the protocols: what any decoded command may meet.
func stages(t *testing.T) []State {
	out := []State{{}}
	for _, make := range []func(*testing.T) *scene{steadyScene, begunTakeover, fencedTakeover, promotedTakeover, settledTakeover, switching, releasingTo, switched,
		restartingPrimary, pausedScene, without, leaving, lowering, raising, accepted(fencedTakeover, vouched), rebuildingScene, unsettled(true)} {
		out = append(out, make(t).s)
	}
	return out
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range commandSeeds(f) {
		data, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{"", "null", "{}", `{"v":1,"begin":{},"settle":{}}`, `{"v":1,"bootstrap":{"members":[{}]}}`, `{"v":1,"settle":{}}x`, `{"v":99,"settle":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCommand(data)
		if err != nil {
			if !errors.Is(err, ErrUnknownCommand) {
				t.Fatalf("error %v does not say that the command is unknown", err)
			}
			return
		}
		first, err := c.Encode()
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		again, err := DecodeCommand(first)
		if err != nil {
			t.Fatalf("%s does not decode again: %v", first, err)
		}
		if second, err := again.Encode(); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%s became %s, error %v", first, second, err)
		}
		for _, s := range stages(t) {
			applyHarmlessly(t, s, c)
		}
	})
}

// applyHarmlessly: Apply does not panic, refuses without a trace, shares no memory with what it was given, and gives a state that encodes.
func applyHarmlessly(t *testing.T, s State, c Command) {
	before := s.Clone()
	next, err := Apply(s, 99, c)
	if !reflect.DeepEqual(s, before) {
		t.Fatalf("%s changed the state it was given", c.Name())
	}
	if err != nil {
		if !reflect.DeepEqual(next, s) {
			t.Fatalf("%s was refused (%v) and gave another state", c.Name(), err)
		}
		return
	}
	if next.Epoch < s.Epoch {
		t.Fatalf("%s lowered the epoch from %d to %d", c.Name(), s.Epoch, next.Epoch)
	}
	if where := shared(reflect.ValueOf(next), reflect.ValueOf(s), "state"); where != "" {
		t.Fatalf("%s: %s is shared with the state before", c.Name(), where)
	}
	if where := shared(reflect.ValueOf(next), reflect.ValueOf(c), "state"); where != "" {
		t.Fatalf("%s: %s is shared with the command", c.Name(), where)
	}
	data, err := EncodeState(next)
	if err != nil {
		t.Fatalf("the state after %s does not encode: %v", c.Name(), err)
	}
	if _, err := DecodeState(data); err != nil {
		t.Fatalf("the state after %s does not decode: %v", c.Name(), err)
	}
}

// memory collects the address of every pointer and slice below a value.
func memory(v reflect.Value, path string, into map[unsafe.Pointer]string) {
	switch v.Kind() { //nolint:exhaustive // the other kinds refer to nothing
	case reflect.Pointer:
		if !v.IsNil() {
			into[v.UnsafePointer()] = path
			memory(v.Elem(), path, into)
		}
	case reflect.Slice:
		// An empty array has no memory of its own; a slice of it is harmless as long as nothing fits behind it.
		if v.Cap() > 0 {
			into[v.UnsafePointer()] = path
		}
		for i := range v.Len() {
			memory(v.Index(i), path, into)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				memory(v.Field(i), path+"."+f.Name, into)
			}
		}
	}
}

// shared names the first part of a that lives in memory of b.
func shared(a, b reflect.Value, path string) string {
	of := map[unsafe.Pointer]string{}
	memory(b, "other", of)
	mine := map[unsafe.Pointer]string{}
	memory(a, path, mine)
	for p, where := range mine {
		if other, ok := of[p]; ok {
			return where + " = " + other
		}
	}
	return ""
}

// TestCloneIsDeep is the control of shared, too: a shallow copy must be seen.
func TestCloneIsDeep(t *testing.T) {
	states := stages(t)
	full := states[len(states)-1]
	full.Paused = &Pause{By: "ann"}
	full.Change = &SetChange{Kind: ChangeShrink, Node: "db3"}
	full.Outside = []Outsider{{"db3", 4}}
	full.Restarts = append(full.Restarts, sceneWall)
	full.Rebuilds, full.Rebuilt = []Rebuilding{{Node: "db3"}}, []RebuildEnd{{Node: "db3"}}
	full.Op.Excluded = []NodeID{"db2"}
	full.Incidents[0].Fence = &Evidence{Kind: EvidenceHook}
	full.Incidents[0].Phases = []PhaseTime{{Name: "drain"}}
	for _, s := range append(states, full) {
		if where := shared(reflect.ValueOf(s.Clone()), reflect.ValueOf(s), "clone"); where != "" {
			t.Errorf("%s", where)
		}
	}
	shallow := full
	if shared(reflect.ValueOf(shallow), reflect.ValueOf(full), "copy") == "" {
		t.Error("the check does not see a shallow copy")
	}
}

func TestApplySharesNothing(t *testing.T) {
	for _, s := range stages(t) {
		for _, c := range commandSeeds(t) {
			applyHarmlessly(t, s, c)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":1,"op":{},"base":{},"incidents":[{"fence":{}}]}`))
	data, err := EncodeState(State{ClusterID: "c1", Members: data("db1"), Restarts: nil, Paused: &Pause{Since: sceneWall}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeState(data)
		if err != nil {
			return
		}
		first, err := EncodeState(s)
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		again, err := DecodeState(first)
		if err != nil {
			t.Fatalf("%s does not decode again: %v", first, err)
		}
		if second, err := EncodeState(again); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%s became %s, error %v", first, second, err)
		}
		surviveState(t, s)
	})
}

// surviveState: no snapshot, however strange, makes the judgement panic.
func surviveState(t *testing.T, s State) {
	for _, c := range commandSeeds(t) {
		applyHarmlessly(t, s, c)
		if c.rebase(s) {
			applyHarmlessly(t, s, c)
		}
	}
	v := Classify(s, View{Now: 1, Wall: sceneWall})
	Decide(s, v)
	for _, m := range s.Members {
		Reconcile(s, m.ID, Local{Fresh: true})
	}
}

// rebase makes a command fit the epoch, the operation and the change of a state, so that it gets past the compare-and-swap.
func (c *Command) rebase(s State) bool {
	switch {
	case c.Begin != nil:
		b := *c.Begin
		b.Epoch, b.OpID = s.Epoch, s.opID()
		c.Begin = &b
	case c.Promote != nil:
		p := *c.Promote
		p.Epoch, p.OpID = s.Epoch, s.opID()
		c.Promote = &p
	case c.Settle != nil:
		e := *c.Settle
		e.Epoch, e.OpID = s.Epoch, s.opID()
		c.Settle = &e
	case c.Grow != nil:
		g := *c.Grow
		g.Epoch = s.Epoch
		c.Grow = &g
	case c.Intend != nil:
		i := *c.Intend
		i.Epoch = s.Epoch
		c.Intend = &i
	case c.Complete != nil:
		d := *c.Complete
		d.Epoch, d.Holders = s.Epoch, slices.Clone(s.Sync.Members)
		if s.Change != nil {
			d.Index = s.Change.Index
		}
		c.Complete = &d
	case c.AcceptLoss != nil:
		a := *c.AcceptLoss
		a.Epoch, a.OpID = s.Epoch, s.opID()
		c.AcceptLoss = &a
	default:
		return false
	}
	return true
}
