package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/highbase/highbase/cluster/api"
)

const (
	maxID    = 63   // bytes of a node id
	maxActor = 200  // bytes of an actor's name
	maxWhy   = 1000 // bytes of a reason
	// maxPause keeps a pause a decision that somebody looks at again, and its arithmetic from overflowing.
	maxPause = 366 * 24 * time.Hour
)

// change handles a request that changes something: decode, check, hand to the leader or carry out.
// T is the request; valid checks it and fills an empty actor. leaderless lets this node carry it out
// itself while no leader is known: bootstrap is what makes the first one.
func change[T any](s *Server, leaderless bool, valid func(req *T, who string) error,
	call func(context.Context, T) (api.Result, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req T
		if err := decodeBody(w, r, &req); err != nil {
			writeError(w, http.StatusBadRequest, err.Error(), "docs/hbctl.md lists the requests")
			return
		}
		if err := valid(&req, callerName(r)); err != nil {
			writeError(w, http.StatusBadRequest, err.Error(), "docs/hbctl.md lists the requests")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), operationTimeout)
		defer cancel()
		leader, self := s.cfg.Backend.LeaderAPI()
		if !self && (leader != "" || !leaderless) {
			body, err := json.Marshal(req)
			if err != nil {
				s.writeBackendError(w, r, fmt.Errorf("encoding the request for the leader: %w", err))
				return
			}
			if leader == "" && s.cfg.Backend.Local().ClusterID == "" {
				writeError(w, http.StatusServiceUnavailable, s.noCluster()+", nothing was begun", howNoCluster)
				return
			}
			s.forward.change(ctx, w, r, leader, body)
			return
		}
		result, err := call(ctx, req)
		if err != nil {
			s.writeBackendError(w, r, err)
			return
		}
		writeResult(w, result)
	})
}

// howNoCluster is what to do about a node without a cluster.
const howNoCluster = "hbctl bootstrap makes a new cluster, once"

// noCluster says why a node without a cluster cannot serve.
func (s *Server) noCluster() string { return s.cfg.Node + " belongs to no cluster yet" }

func validBootstrap(req *api.BootstrapRequest, who string) error {
	return errors.Join(validText("primary", req.Primary, maxID), validActor(&req.Actor, who))
}

func validPromote(req *api.SwitchoverRequest, who string) error {
	if req.To == "" {
		return errors.New(`promote needs "to", the id of the node that is to become the primary`)
	}
	return validSwitchover(req, who)
}

func validDemote(req *api.SwitchoverRequest, who string) error {
	if req.To != "" {
		return errors.New(`demote takes no "to": it chooses the best candidate; promote takes one`)
	}
	return validSwitchover(req, who)
}

func validSwitchover(req *api.SwitchoverRequest, who string) error {
	if req.From != "" && req.From == req.To {
		return fmt.Errorf("%q is both from and to", req.From)
	}
	switch {
	case req.WaitSeconds < 0 || req.WaitSeconds > maxClientWait.Seconds():
		return fmt.Errorf("wait_seconds is %v, expected 0 (refuse at once) to %v", req.WaitSeconds, maxClientWait.Seconds())
	case req.Kill && req.WaitSeconds > 0:
		return errors.New("both kill and wait_seconds: clients are either killed or waited for")
	}
	return errors.Join(validText("if_plan", req.IfPlan, maxID), validText("from", req.From, maxID), validText("to", req.To, maxID), validActor(&req.Actor, who))
}

func validFailover(req *api.FailoverRequest, who string) error {
	if req.Fenced != "" && !req.AcceptDataLoss {
		return errors.New(`"fenced" is for a failover that accepts a loss: any other finds its evidence itself`)
	}
	if req.Fenced != "" && req.Fenced == req.To {
		return fmt.Errorf("%q is both switched off and to be promoted", req.To)
	}
	return errors.Join(validText("to", req.To, maxID), validText("fenced", req.Fenced, maxID), validActor(&req.Actor, who))
}

// maxClientWait bounds how long an operation may wait for clients.
const maxClientWait = time.Hour

func validPause(req *api.PauseRequest, who string) error {
	if req.ForSeconds < 0 || req.ForSeconds > int64(maxPause/time.Second) {
		return fmt.Errorf("for_seconds is %d, expected 0 (until resumed) to %d", req.ForSeconds, int64(maxPause/time.Second))
	}
	return errors.Join(validText("why", req.Why, maxWhy), validActor(&req.Actor, who))
}

func validResume(req *api.ResumeRequest, who string) error {
	return validActor(&req.Actor, who)
}

func validRebuild(req *api.RebuildRequest, who string) error {
	if req.Node == "" {
		return errors.New(`rebuild needs "node", the id of the node whose data is replaced`)
	}
	return errors.Join(validText("node", req.Node, maxID), validText("from", req.From, maxID), validActor(&req.Actor, who))
}

func validRejoin(req *api.RejoinRequest, who string) error {
	if req.Node == "" {
		return errors.New(`rejoin needs "node", the id of the node that is to come back`)
	}
	return errors.Join(validText("node", req.Node, maxID), validActor(&req.Actor, who))
}

// validActor checks the name of who asks, and puts in where the request came from when there is none:
// an incident without an actor cannot be asked about.
func validActor(actor *string, who string) error {
	if *actor == "" {
		*actor = who
	}
	return validText("actor", *actor, maxActor)
}

// validText refuses what would garble a terminal, a log line or the history for ever.
func validText(name, text string, limit int) error {
	if len(text) > limit {
		return fmt.Errorf("%s is %d bytes long, at most %d are allowed", name, len(text), limit)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s is not valid UTF-8", name)
	}
	for _, c := range text {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("%s contains the character %U, only printable ones are allowed", name, c)
		}
	}
	return nil
}

func callerName(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "unknown"
	}
	return "someone at " + host
}
