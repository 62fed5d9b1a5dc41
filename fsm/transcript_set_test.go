package fsm

import (
	"fmt"
	"strings"
)

// playSet understands what happens to the sync set and to a failover that cannot be won.
func (p *player) playSet(line string, w []string) []string {
	c := p.c
	node := NodeID(w[min(1, len(w)-1)])
	switch w[0] {
	case "min-replicas":
		if _, err := fmt.Sscan(w[1], &c.s.Settings.SyncMinReplicas); err != nil {
			p.t.Fatal(err)
		}
	case "prepares": // the primary has done what the change needs, and says where it was after that
		o := c.obs[node]
		if c.s.Change == nil {
			p.t.Fatalf("%q: no change is intended: %s; %v", line, p.state(), c.last.Verdicts)
		}
		o.Prepared, o.PreparedAt, o.PortGated = c.s.Change.Index, w[2], c.s.CoverPort()
	case "holds":
		c.obs[node].Server.Received = w[2]
	case "replicates":
		c.replicates(NodeID(w[2]), node)
	case "caught-up":
		c.caughtUp = append(c.caughtUp, SyncMember{Node: node, Incarnation: c.obs[node].Incarnation})
	case "again": // a host that was off is back as a replica of another incarnation
		c.find(node)
		c.obs[node] = c.replica(node)
		c.obs[node].Incarnation += "-again"
	case "kept-out":
		c.obs[node].Standing, c.obs[node].Reason = StandingQuarantined, strings.Join(w[2:], " ")
	case "hook":
		c.fence = &Evidence{Kind: EvidenceHook, Node: node, Detail: "the external fence switched it off"}
	default:
		p.t.Fatalf("%q is not understood", line)
	}
	return nil
}

// proposeSet is what an operator may ask for when a failover cannot be won.
func (p *player) proposeSet(w []string) Command {
	s := p.c.s
	switch w[0] {
	case "failover":
		return Command{Begin: &Begin{Kind: KindFailover, Epoch: s.Epoch, OpID: s.opID(), Cause: "asked for", Actor: "ann", Lossy: true}}
	case "accept-loss":
		a := AcceptLoss{OpID: s.opID(), Epoch: s.Epoch, Actor: "ann"}
		for _, word := range w[1:] {
			if word == "vouched" {
				a.Vouched = true
			} else {
				a.To = NodeID(word)
			}
		}
		return Command{AcceptLoss: &a}
	}
	p.t.Fatalf("cannot propose %q", w)
	return Command{}
}

func change(kind ChangeKind, node NodeID, acks int) string {
	if kind == ChangeShrink {
		return fmt.Sprintf("%s leaves the set", node)
	}
	return fmt.Sprintf("%d acknowledgements", acks)
}

func sentenceOfSet(c Command) string {
	switch {
	case c.Chain != nil:
		return "chain: those outside the set replicate from the candidate"
	case c.Grow != nil:
		return fmt.Sprintf("grow by %s as %s", c.Grow.Node, c.Grow.Incarnation)
	case c.Recount != nil:
		return fmt.Sprintf("recount %s as %s", c.Recount.Node, c.Recount.Incarnation)
	case c.Intend != nil:
		return fmt.Sprintf("intend %s: %s", change(c.Intend.Kind, c.Intend.Node, c.Intend.Acks), c.Intend.Cause)
	case c.Complete != nil:
		var by []string
		for _, m := range c.Complete.Holders {
			by = append(by, string(m.Node))
		}
		return fmt.Sprintf("complete %d: %s is held by %v", c.Complete.Index, orNone(c.Complete.Position), by)
	case c.Abandon != nil:
		return fmt.Sprintf("abandon %d: %s", c.Abandon.Index, c.Abandon.Reason)
	}
	return c.Name()
}
