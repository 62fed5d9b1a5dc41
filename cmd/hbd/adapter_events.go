package main

import (
	"context"
	"errors"

	"github.com/highbase/highbase/cluster"
	"github.com/highbase/highbase/mysqld"
)

// Events implements cluster.Scheduler, as do the others.
func (d *database) Events(ctx context.Context) (map[cluster.EventName]cluster.EventState, error) {
	found, err := d.server.Events(ctx)
	if err != nil {
		return nil, eventError(err)
	}
	out := make(map[cluster.EventName]cluster.EventState, len(found))
	for _, e := range found {
		out[cluster.EventName(e.EventName)] = eventStates[e.State]
	}
	return out, nil
}

var eventStates = map[mysqld.EventState]cluster.EventState{
	mysqld.EventEnabled: cluster.EventEnabled, mysqld.EventDisabled: cluster.EventDisabled, mysqld.EventOnSource: cluster.EventOnSource,
}

func (d *database) ListedEvents(ctx context.Context) ([]cluster.EventName, error) {
	found, err := d.server.ListedEvents(ctx)
	out := make([]cluster.EventName, 0, len(found))
	for _, e := range found {
		out = append(out, cluster.EventName(e))
	}
	return out, err
}

func (d *database) ListEvents(ctx context.Context, add, remove []cluster.EventName, may func() error) error {
	return d.server.ListEvents(ctx, eventNames(add), eventNames(remove), may)
}

func (d *database) EnableEvent(ctx context.Context, name cluster.EventName, may func() error) (bool, error) {
	enabled, err := d.server.EnableEvent(ctx, mysqld.EventName(name), may)
	return enabled, eventError(err)
}

func eventNames(names []cluster.EventName) []mysqld.EventName {
	out := make([]mysqld.EventName, 0, len(names))
	for _, e := range names {
		out = append(out, mysqld.EventName(e))
	}
	return out
}

// eventRightsError is an error that the cluster knows as one of missing rights.
type eventRightsError struct{ error }

// Is implements what errors.Is asks for.
func (e eventRightsError) Is(target error) bool { return target == cluster.ErrEventRights }

func eventError(err error) error {
	if errors.Is(err, mysqld.ErrEventRights) {
		return eventRightsError{err}
	}
	return err
}
