package fsm

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata with what the judgement says now")

// TestTranscripts plays the stories in testdata/decide. Each line that is not indented is something that happens or is asked; the indented lines
// below it are what the judgement says to that. Read the difference before committing what -update wrote.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/decide/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := tell(t, string(want))
			if got == string(want) {
				return
			}
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s says otherwise now (go test ./fsm -run Transcripts -update rewrites it):\n%s", name, difference(string(want), got))
		})
	}
}

// tell runs a story and writes the answers under its lines.
func tell(t *testing.T, story string) string {
	p := &player{t: t}
	var out strings.Builder
	for line := range strings.Lines(story) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, " ") {
			continue
		}
		out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, answer := range p.play(line) {
			out.WriteString("  " + answer + "\n")
		}
	}
	return out.String()
}

func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\n- %s\n+ %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines were there, %d are said now", len(a), len(b))
}

// player knows the sentences of the stories.
type player struct {
	t *testing.T
	c *scene
}

// play understands one line. Nodes are named by their ids.
func (p *player) play(line string) []string {
	w := strings.Fields(line)
	if p.c == nil && w[0] != "cluster" {
		p.t.Fatalf("%q before there is a cluster", line)
	}
	node := NodeID(w[min(1, len(w)-1)])
	switch w[0] {
	case "cluster":
		p.cluster(w[1:])
		return []string{p.state()}
	case "decide":
		return p.decide()
	case "commit":
		return p.commit()
	case "propose":
		return p.propose(w[1:])
	case "wait":
		d, err := time.ParseDuration(w[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.c.wait(d)
	case "leader":
		p.newLeader(node)
	case "lost":
		p.c.lose(node)
	case "back":
		p.c.find(node)
	case "mysqld":
		o := p.c.obs[node]
		o.Server.State, o.Server.Fault = ServerState(w[2]), strings.Join(w[3:], " ")
		if o.Server.State != ServerUp {
			o.Serving = 0
		}
	case "start-fails":
		p.c.obs[node].FailedIndex, p.c.obs[node].FailedReason = p.c.s.Op.Index, strings.Join(w[2:], " ")
	case "forgets":
		p.c.obs[node].Incarnation += "'"
	case "frozen":
		return p.frozen(node, w[2:])
	case "fenced":
		p.c.fence = &Evidence{Kind: EvidenceAgent, Node: node, Detail: "gate closed, mysqld killed"}
	case "releases":
		a := p.c.answer(node, w[2])
		a.Held = p.c.s.Epoch
		p.c.release = &a
		p.c.obs[node].Serving = 0
	case "reaches":
		p.c.reached = true
	case "serves":
		p.c.serve(node)
	default:
		return p.playSet(line, w)
	}
	return nil
}

func (p *player) cluster(ids []string) {
	var members []Member
	for _, id := range ids {
		if strings.HasPrefix(id, "w") {
			members = append(members, witness(NodeID(id)))
			continue
		}
		members = append(members, data(NodeID(id))...)
	}
	p.c = steady(p.t, members...)
}

// newLeader begins as every leader does: with an empty view, and with whatever was granted before to be waited out.
func (p *player) newLeader(id NodeID) {
	c := p.c
	c.self, c.stepSince, c.leaseClear = id, c.now, OfficeClear(c.s, c.now)
	c.answers, c.fence, c.release, c.reached = nil, nil, nil, false
}

func (p *player) frozen(id NodeID, w []string) []string {
	a := p.c.answer(id, w[0])
	if len(w) > 1 {
		if _, err := fmt.Sscanf(w[1], "held=%d", &a.Held); err != nil {
			p.t.Fatalf("%q: %v", w[1], err)
		}
	}
	p.c.answers = append(slices.DeleteFunc(p.c.answers, func(o Answer) bool { return o.Node == id }), a)
	return nil
}

func (p *player) decide() []string {
	d := p.c.decide()
	var out []string
	for _, v := range d.Verdicts {
		if !v.OK || v.Rule == "candidate.chosen" || len(d.Verdicts) < 4 {
			out = append(out, v.String())
		}
	}
	for _, c := range d.Commands {
		out = append(out, "-> commit "+sentence(c))
	}
	for _, o := range d.Orders {
		out = append(out, "-> order "+strings.TrimSpace(fmt.Sprintf("%s %s (epoch %d, index %d) %s", o.Node, o.Kind, o.Epoch, o.Index, o.Position)))
	}
	if d.Transfer != "" {
		out = append(out, "-> leadership to "+string(d.Transfer))
	}
	if len(out) == 0 {
		return []string{"nothing to do"}
	}
	return out
}

// commit applies what was decided last. What was heard for the step before is forgotten with it.
func (p *player) commit() []string {
	var out []string
	for _, cmd := range p.c.last.Commands {
		out = append(out, p.apply(cmd))
	}
	p.c.last = Decision{}
	return append(out, p.state())
}

func (p *player) apply(cmd Command) string {
	c := p.c
	before, epoch := opIndex(c.s), c.s.Epoch
	if cmd.Begin != nil { // from here nothing is granted: the last grant runs out
		c.leaseClear = GrantClear(c.s.Settings, c.now, c.s.Settings.Lease)
	}
	if err := c.apply(cmd); err != nil {
		if !errors.Is(err, ErrRefused) {
			p.t.Fatal(err)
		}
		return cmd.Name() + ": " + err.Error()
	}
	if opIndex(c.s) != before {
		c.fence, c.release, c.reached = nil, nil, false
	}
	if c.s.Epoch != epoch {
		c.answers = nil
	}
	return cmd.Name() + " is committed"
}

// propose is an operator's command, or one that somebody else proposed.
func (p *player) propose(w []string) []string {
	c := p.c
	var cmd Command
	switch w[0] {
	case "switchover":
		cmd.Switchover = &Switchover{Kind: KindSwitchover, Epoch: c.s.Epoch, From: c.s.Primary, To: NodeID(w[1]), Actor: "ann"}
	case "pause":
		cmd.SetPause = &SetPause{Paused: true, By: "ann", Why: "upgrade"}
	case "resume":
		cmd.SetPause = &SetPause{}
	case "rollback":
		cmd.Rollback = &Rollback{OpID: c.s.opID(), Epoch: c.s.Epoch, Reason: "asked for"}
	case "recount":
		cmd.Recount = &Recount{Epoch: c.s.Epoch, Node: NodeID(w[1]), Incarnation: c.obs[NodeID(w[1])].Incarnation}
	default:
		cmd = p.proposeSet(w)
	}
	return []string{p.apply(cmd), p.state()}
}

func (p *player) state() string {
	s := p.c.s
	out := fmt.Sprintf("epoch %d, primary %s, %s", s.Epoch, orNone(string(s.Primary)), s.Phase)
	if s.Op != nil {
		out += fmt.Sprintf(", %s %d at %s", s.Op.Kind, s.Op.ID, s.Op.Step)
	}
	if s.Base != nil {
		out += fmt.Sprintf(", base epoch %d", s.Base.Epoch)
	}
	var set []string
	for _, m := range s.Sync.Members {
		set = append(set, string(m.Node)+"="+orNone(m.Incarnation))
	}
	out += fmt.Sprintf(", sync %v acks %d", set, s.Sync.Acks)
	if c := s.Change; c != nil {
		out += fmt.Sprintf(", preparing since %d: %s", c.Index, change(c.Kind, c.Node, c.Acks))
	}
	return out
}

// sentence is a command in words.
func sentence(c Command) string {
	switch {
	case c.Begin != nil:
		return fmt.Sprintf("begin %s of epoch %d: %s", c.Begin.Kind, c.Begin.Epoch, c.Begin.Cause)
	case c.Fence != nil:
		return fmt.Sprintf("fence of %s by %s: %s", c.Fence.Evidence.Node, c.Fence.Evidence.Kind, c.Fence.Evidence.Detail)
	case c.Promote != nil:
		return fmt.Sprintf("promote %s, won by %s, must hold %s", c.Promote.To, c.Promote.Won, orNone(c.Promote.Position))
	case c.Settle != nil:
		return fmt.Sprintf("settle epoch %d", c.Settle.Epoch)
	case c.Restart != nil:
		return fmt.Sprintf("restart, attempt %d: %s", c.Restart.Attempt, c.Restart.Cause)
	case c.Rollback != nil:
		return "rollback: " + c.Rollback.Reason
	}
	return sentenceOfSet(c)
}
