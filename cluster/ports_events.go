package cluster

import (
	"context"
	"errors"
)

// ErrEventRights is returned by Scheduler, wrapped with what is missing and how to mend it, where the manager's account may not handle events.
var ErrEventRights = errors.New("the manager's account may not handle scheduled events")

// EventName names a scheduled event of this host's mysqld.
type EventName struct{ Schema, Name string }

// String is the name as people write it.
func (e EventName) String() string { return e.Schema + "." + e.Name }

// EventState is what mysqld does with an event.
type EventState string

// The states of an event. A replica has all its events in the last, whatever they are at the source, and keeps them so when it becomes primary.
const (
	EventEnabled  EventState = "enabled"
	EventDisabled EventState = "disabled"
	EventOnSource EventState = "disabled on this side"
)

// Scheduler is the part of a database that is about scheduled events. What writes asks may right before each statement that commits, and sends
// nothing more once that gives an error, which is returned. What is sent the server carries out whatever becomes of ctx.
type Scheduler interface {
	// Events lists all events, whether or not the scheduler is on.
	Events(ctx context.Context) (map[EventName]EventState, error)
	// ListedEvents are the events noted as enabled on the primary, by the newest note that has reached this server.
	ListedEvents(ctx context.Context) ([]EventName, error)
	// ListEvents changes those notes, in one transaction.
	ListEvents(ctx context.Context, add, remove []EventName, may func() error) error
	// EnableEvent enables an event that is disabled on this side, and leaves every other alone: then it gives false. Replicas take an event that was
	// enabled as disabled on their side.
	EnableEvent(ctx context.Context, name EventName, may func() error) (enabled bool, err error)
}
