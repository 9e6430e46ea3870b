package appliance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"signdrop/spool"
	"signdrop/spool/durable"
)

// inFlight bounds the items that are out of the inboxes and not yet published,
// and bytesInFlight their size: what a crash leaves to be done again, what memory
// they take, and how long a partner waits behind another's flood. Three groups are
// enough to keep the processors busy while a group is being synced.
const (
	inFlight      = 192
	bytesInFlight = 96 << 20
)

// again is how soon names are looked at that were about to be ready.
const again = 20 * time.Millisecond

// pipeline is one run of the appliance: a dispatcher finds items, workers take
// them, the committer records and publishes them. Each owns what it touches, and
// all end when the dispatcher does.
type pipeline struct {
	a     *Appliance
	ctx   context.Context
	items chan *spool.Item
	tasks chan *task

	out atomic.Int64 // items sent to workers and not yet committed or put back

	mu    sync.Mutex
	room  *sync.Cond // bytes or out has shrunk
	bytes int64
}

// Serve answers what comes until ctx is done; then it finishes what it has begun
// and returns nil. An error says why it had to stop; the requests that were under
// way are kept, and the next start answers them.
func (a *Appliance) Serve(ctx context.Context) error {
	if a.cfg.Watch != "" && a.watcher == nil {
		w, err := spool.Watch(a.spool, a.cfg.Watch, a.Wake)
		if err != nil {
			a.log.Warn().Err(err).Dur("rescan", a.cfg.Rescan).Msg("inboxes are not watched, only walked through")
		}
		a.watcher = w
	}
	// Watch first, walk then: what comes in between is seen at least once.
	if err := a.refresh(); err != nil {
		return err
	}
	return a.run(ctx, func(p *pipeline) { p.dispatch(true) })
}

// Once answers what lies in the inboxes now, and returns when nothing is left but
// files that are not complete.
func (a *Appliance) Once(ctx context.Context) error {
	if a.cfg.Serial {
		return a.serial(ctx)
	}
	return a.run(ctx, func(p *pipeline) { p.dispatch(false) })
}

// Counts returns what was done. It is to be called after Serve or Once.
func (a *Appliance) Counts() Counts {
	c := a.counts
	c.Unserved = a.unserved
	return c
}

// Left counts the files in the inboxes that wait and those that are ignored.
func (a *Appliance) Left() (waiting, ignored int, err error) { return a.spool.Left() }

func (a *Appliance) run(ctx context.Context, dispatch func(*pipeline)) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	a.mu.Lock()
	a.cut = cut
	a.mu.Unlock()

	p := &pipeline{a: a, ctx: ctx, items: make(chan *spool.Item, inFlight), tasks: make(chan *task, inFlight)}
	p.room = sync.NewCond(&p.mu)
	var workers, committer sync.WaitGroup
	for range a.cfg.Workers {
		workers.Go(p.work)
	}
	committer.Go(p.commit)
	dispatch(p)
	close(p.items)
	workers.Wait()
	close(p.tasks)
	committer.Wait()
	return a.failed()
}

// serial is Once without any other goroutine.
func (a *Appliance) serial(ctx context.Context) error {
	items, err := a.spool.Recover()
	for err == nil && ctx.Err() == nil {
		var group []*task
		for _, it := range items {
			t, terr := a.take(it)
			if terr != nil {
				err = terr
				break
			}
			if t != nil {
				group = append(group, t)
			}
		}
		if err == nil && len(group) > 0 {
			err = a.commit(group)
		}
		if err != nil {
			break
		}
		a.spool.Retry()
		if items, err = a.spool.Next(a.cfg.Group); err == nil && len(items) == 0 {
			err = a.settle()
			break
		}
	}
	if err != nil {
		a.fail(err)
	}
	return err
}

// send gives an item to the workers when there is room for it.
func (p *pipeline) send(it *spool.Item) {
	size := int64(len(it.Data))
	p.mu.Lock()
	for p.out.Load() > 0 && (p.out.Load() >= inFlight || p.bytes+size > bytesInFlight) {
		p.room.Wait()
	}
	p.bytes += size
	p.out.Add(1)
	p.mu.Unlock()
	p.items <- it
}

// done ends an item's time in the pipeline.
func (p *pipeline) done(size int) {
	p.mu.Lock()
	p.out.Add(-1)
	p.bytes -= int64(size)
	p.mu.Unlock()
	p.room.Broadcast()
}

// dispatch finds items: what a crash left first, then what the inboxes hold. It
// is the only caller of spool.Next.
func (p *pipeline) dispatch(forever bool) {
	a := p.a
	rescan := time.NewTicker(a.cfg.Rescan)
	defer rescan.Stop()
	for p.ctx.Err() == nil {
		select {
		case <-rescan.C: // also while there is no end of work
			if err := a.refresh(); err != nil {
				a.fail(err)
				return
			}
		default:
		}
		items, err := a.spool.Recover()
		if err != nil {
			a.fail(err)
			return
		}
		for _, it := range items {
			p.send(it)
		}
		if !p.roomOnDisk() {
			if !forever {
				a.fail(errNoRoom)
				return
			}
			continue
		}
		if items, err = a.spool.Next(a.cfg.Group); err != nil {
			a.fail(err)
			return
		}
		for _, it := range items {
			p.send(it)
		}
		if len(items) > 0 {
			continue
		}
		if !forever {
			if p.finished() {
				return
			}
			continue
		}
		p.idle(rescan.C)
	}
}

// idle waits until there may be something to do.
func (p *pipeline) idle(rescan <-chan time.Time) {
	a := p.a
	var soon <-chan time.Time
	if a.spool.Unsettled() {
		t := time.NewTimer(again)
		defer t.Stop()
		soon = t.C
	}
	select {
	case <-p.ctx.Done():
	case <-a.wake:
	case <-soon:
		a.spool.Retry()
	case <-rescan:
		if err := a.refresh(); err != nil {
			a.fail(err)
		}
	}
}

// finished reports, for Once, that nothing is under way and nothing is about to
// be ready. Otherwise it waits a little.
func (p *pipeline) finished() bool {
	if p.out.Load() == 0 && !p.a.spool.Unsettled() {
		// What came back in the last moment has been seen by Next, or it waits.
		return true
	}
	t := time.NewTimer(again)
	defer t.Stop()
	select {
	case <-p.ctx.Done():
	case <-p.a.wake:
	case <-t.C:
		p.a.spool.Retry()
	}
	return false
}

// errNoRoom ends Once where Serve waits.
var errNoRoom = errors.New("the data volume is nearly full: make room and start again; what was not answered waits in the inboxes")

// roomOnDisk keeps the appliance from claiming what it could not answer. While
// the disk is nearly full everything waits in the inboxes.
func (p *pipeline) roomOnDisk() bool {
	a := p.a
	sp, err := a.vol.Space()
	if err != nil {
		a.fail(err)
		return false
	}
	if enough(sp, a.cfg.Reserve) {
		return true
	}
	a.log.Error().Uint64("free_bytes", sp.Free).Uint64("free_inodes", sp.Files).Uint64("reserve_bytes", a.cfg.Reserve).
		Msg("data volume is nearly full: nothing is claimed until there is room")
	select {
	case <-p.ctx.Done():
	case <-time.After(a.cfg.Rescan):
	}
	return false
}

// spareInodes is how many inodes must be left to go on.
const spareInodes = 4096

func enough(sp durable.Space, reserve uint64) bool {
	return sp.Free >= reserve && (sp.Files == 0 || sp.Files >= spareInodes)
}

// work takes items until there are no more.
func (p *pipeline) work() {
	for it := range p.items {
		size := len(it.Data)
		if p.a.failed() != nil || p.ctx.Err() != nil && !it.Claimed {
			p.done(size)
			continue // still in the inbox or in work/: the next start sees it
		}
		t, err := p.a.take(it)
		if err != nil {
			p.a.fail(err)
		}
		if t == nil {
			p.done(size)
			continue
		}
		t.size = size
		p.tasks <- t
	}
}

// commit gathers tasks into groups and commits them, until there are no more.
func (p *pipeline) commit() {
	var group []*task
	wait := time.NewTimer(time.Hour)
	defer wait.Stop()
	open := true
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for open {
		var t *task
		var ok bool
		select {
		case t, ok = <-p.tasks:
		case <-retry.C:
			p.flush(nil) // what could not be published may be possible now
			continue
		}
		if !ok {
			break
		}
		group = append(group[:0], t)
		wait.Reset(p.a.cfg.Wait)
	gather:
		for len(group) < p.a.cfg.Group && p.out.Load() > int64(len(group)) {
			select {
			case t, ok := <-p.tasks:
				if !ok {
					open = false
					break gather
				}
				group = append(group, t)
			case <-wait.C:
				break gather
			}
		}
		p.flush(group)
	}
	if p.a.failed() == nil {
		if err := p.a.settle(); err != nil {
			p.a.fail(err)
		}
	}
}

// flush commits a group, and settles if nothing else is under way.
func (p *pipeline) flush(group []*task) {
	a := p.a
	if a.failed() == nil && len(group) > 0 {
		if err := a.commit(group); err != nil {
			a.fail(err)
		}
	}
	for _, t := range group {
		p.done(t.size)
	}
	if p.out.Load() == 0 && a.failed() == nil {
		if err := a.settle(); err != nil {
			a.fail(err)
		}
	}
}
