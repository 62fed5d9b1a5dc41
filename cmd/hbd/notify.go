package main

import (
	"context"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// maxLoopAge is how old the local loop's last turn may be for the service manager to be told that all is well. A loop
// that stands longer will not move again by itself.
const maxLoopAge = 10 * time.Second

// notifyService tells systemd, if it started us, that we are ready, and from then on that we live (sd_notify(3)). A node
// whose loop stands is not reported alive: systemd then starts it again.
func (d *daemon) notifyService(ctx context.Context) {
	d.tellService(systemd.SdNotifyReady)
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("systemd's watchdog is not understood", "error", err)
	}
	if interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if age := d.backend.Local().Age; age > maxLoopAge {
			d.log.Error("not telling systemd that all is well", "loop_age", age)
			continue
		}
		d.tellService(systemd.SdNotifyWatchdog)
	}
}

// tellService sends one message to systemd; without systemd it does nothing.
func (d *daemon) tellService(message string) {
	if _, err := systemd.SdNotify(false, message); err != nil {
		d.log.Warn("telling systemd", "message", message, "error", err)
	}
}
