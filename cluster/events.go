package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

const (
	// eventLook is how often a primary looks at its scheduled events: what changes in between is not noted when its host is lost.
	eventLook = 3 * time.Second
	// eventAsk bounds the questions.
	eventAsk = 2 * time.Second
	// eventPause is between two attempts at events that could not be enabled, and between two looks that failed, doubled each time.
	eventPause    = 3 * time.Second
	maxEventPause = time.Minute
)

// events lets the scheduled events follow the primary. A replica holds all of them disabled on its side, those too that are disabled on purpose. So
// the primary notes which are enabled, and a new one enables what the notes say once it serves: each once in a tenure. What it has not enabled yet
// stays noted, or a primary that is lost before that would leave nothing to the next. It belongs to watchEvents alone.
type events struct {
	tenure  tenure
	begun   bool        // pending is known
	pending []EventName // noted before this tenure, and not enabled yet
	listed  map[EventName]bool
	failed  error       // why some of pending are not enabled
	tried   int         // so often, in vain
	again   fsm.Instant // not before
}

// watchEvents looks after the events for as long as this node is primary. It is beside everything else: nothing waits for it but who takes the role
// away, and that for one statement.
func (n *Node) watchEvents(ctx context.Context) {
	changed := n.store.watch()
	defer n.store.unwatch(changed)
	timer := time.NewTimer(eventLook)
	defer timer.Stop()
	var e events
	last, pause := "", eventLook
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed: // a new primary need not wait for the next look
			if e.begun && e.tenure == n.tenure() {
				continue
			}
		case <-timer.C:
		}
		err := n.lookAtEvents(ctx, &e)
		if said := errText(err); said != last && ctx.Err() == nil {
			last = said
			if err != nil {
				n.log.Warn("scheduled events do not follow", "error", said)
			}
		}
		if pause = min(2*pause, maxEventPause); err == nil || e.failed != nil {
			pause = eventLook
		}
		timer.Reset(pause)
	}
}

// lookAtEvents is one turn: look, enable what the notes of the last primary say, note what has changed.
func (n *Node) lookAtEvents(ctx context.Context, e *events) error {
	t := n.tenure()
	if may := n.mayWriteOwn(t) == nil; !may {
		return nil
	}
	if e.tenure != t {
		*e = events{tenure: t}
	}
	found, err := n.askEvents(ctx, e)
	if err != nil {
		return err
	}
	n.enableEvents(ctx, e, found)
	return errors.Join(e.failed, n.noteEvents(ctx, e, found))
}

// askEvents asks the server what there is, and what is noted unless that is known.
func (n *Node) askEvents(ctx context.Context, e *events) (map[EventName]EventState, error) {
	ctx, cancel := context.WithTimeout(ctx, eventAsk)
	defer cancel()
	found, err := n.cfg.Database.Events(ctx)
	if err != nil || e.listed != nil {
		return found, err
	}
	listed, err := n.cfg.Database.ListedEvents(ctx)
	if err != nil {
		return nil, err
	}
	e.listed = map[EventName]bool{}
	for _, name := range listed {
		e.listed[name] = true
	}
	if !e.begun {
		e.begun, e.pending = true, slices.SortedFunc(slices.Values(listed), eventOrder)
	}
	return found, nil
}

func eventOrder(a, b EventName) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}

// enableEvents enables what is pending. One that fails holds up no other, but for missing rights, which are the same for all.
func (n *Node) enableEvents(ctx context.Context, e *events, found map[EventName]EventState) {
	e.pending = slices.DeleteFunc(e.pending, func(name EventName) bool { return found[name] != EventOnSource })
	if len(e.pending) == 0 {
		e.failed, e.tried = nil, 0
	}
	if len(e.pending) == 0 || now() < e.again {
		return
	}
	begin := now()
	var done []EventName
	var errs []error
	for _, name := range e.pending {
		enabled := false
		err := n.writeOwn(ctx, e.tenure, func(ctx context.Context, may func() error) (err error) {
			enabled, err = n.cfg.Database.EnableEvent(ctx, name, may)
			return err
		})
		if enabled {
			found[name] = EventEnabled
			done = append(done, name)
		}
		if err != nil {
			errs = append(errs, err)
		}
		if errors.Is(err, ErrEventRights) || errors.Is(err, errOvertaken) || ctx.Err() != nil {
			break
		}
	}
	if len(done) > 0 {
		n.log.Info("events enabled", "count", len(done), "events", someEvents(done), "epoch", e.tenure.epoch, "took", (now() - begin).Round(100*time.Microsecond))
	}
	e.pending = slices.DeleteFunc(e.pending, func(name EventName) bool { return found[name] == EventEnabled })
	if n.mayWriteOwn(e.tenure) != nil {
		return // what did not come to an end is no failure
	}
	if e.failed = errors.Join(errs...); e.failed != nil {
		e.again = now() + min(eventPause<<min(e.tried, 8), maxEventPause)
		e.tried++
	}
}

// someEvents names the first of them.
func someEvents(names []EventName) []string {
	var out []string
	for _, name := range names[:min(len(names), 20)] {
		out = append(out, name.String())
	}
	return out
}

// noteEvents writes down what differs from what is noted: the enabled events, and those that are still to be.
func (n *Node) noteEvents(ctx context.Context, e *events, found map[EventName]EventState) error {
	wanted := map[EventName]bool{}
	for name, state := range found {
		if state == EventEnabled || slices.Contains(e.pending, name) {
			wanted[name] = true
		}
	}
	add, remove := lacking(wanted, e.listed), lacking(e.listed, wanted)
	if len(add)+len(remove) == 0 {
		return nil
	}
	err := n.writeOwn(ctx, e.tenure, func(ctx context.Context, may func() error) error {
		return n.cfg.Database.ListEvents(ctx, add, remove, may)
	})
	if err != nil {
		e.listed = nil // it may have been written all the same
		if errors.Is(err, errOvertaken) {
			return nil
		}
		return err
	}
	e.listed = wanted
	n.log.Info("enabled events noted", "count", len(wanted), "added", someEvents(add), "removed", someEvents(remove))
	return nil
}

// lacking are the events of one set that another lacks.
func lacking(of, in map[EventName]bool) []EventName {
	var out []EventName
	for name := range of {
		if !in[name] {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, eventOrder)
	return out
}
