package appliance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"signdrop/appliance/setup"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// inFlight bounds the items that are out of the inboxes and not yet published,
// and bytesInFlight their size: what a crash leaves to be done again, what memory
// they take, and how long a partner waits behind another's flood. Three groups are
// enough to keep the processors busy while a group is being synced.
const (
	inFlight      = 512
	bytesInFlight = 96 << 20
)

// again is how soon names are looked at that were about to be ready.
const again = 20 * time.Millisecond

// pipeline is one run of the appliance: a dispatcher finds items, workers take
// them, the committer records them, and while it gathers and records the next
// group a publisher makes the one before visible and a retirer puts away the one
// before that. Each owns what it touches, and all end when the dispatcher does.
type pipeline struct {
	a     *Appliance
	ctx   context.Context
	items chan *spool.Item
	tasks chan *task
	clerk chan *spool.Item // commands, see attend
	done  chan []*task     // to be retired

	with      atomic.Int64 // commands that the clerk has
	withBytes atomic.Int64

	out   atomic.Int64 // items sent to workers and not yet published or put back
	ahead atomic.Int64 // of these, those that the committer has not got yet

	publishing *publishing // owned by the committer

	mu    sync.Mutex
	room  *sync.Cond // bytes or out has shrunk
	bytes int64
}

// publishing is a group that is being published.
type publishing struct {
	ended chan struct{} // closed at the end
	again []*task       // to be recorded anew; valid after the end
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
	// It may have run before: nothing that was quiet then is taken for quiet now.
	if err := a.refresh(); err != nil {
		return err
	}
	return a.run(ctx, func(p *pipeline) { p.dispatch(false) })
}

// Counts returns what was done. It is to be called after Serve or Once.
func (a *Appliance) Counts() Counts {
	c := a.counts
	c.Unserved, c.Held = a.unserved, a.held.Load()
	return c
}

// Left counts the files in the inboxes that wait and those that are ignored, and calls
// each for those that wait.
func (a *Appliance) Left(each func(company, name string)) (waiting, ignored int, err error) {
	return a.spool.Left(each)
}

func (a *Appliance) run(ctx context.Context, dispatch func(*pipeline)) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	a.mu.Lock()
	a.cut = cut
	a.mu.Unlock()
	a.stop = ctx

	p := &pipeline{
		a: a, ctx: ctx,
		items: make(chan *spool.Item, inFlight), tasks: make(chan *task, inFlight), done: make(chan []*task, 4),
		clerk: make(chan *spool.Item, maxCommands),
	}
	p.room = sync.NewCond(&p.mu)
	var workers, committer, retirer sync.WaitGroup
	for range a.cfg.Workers {
		workers.Go(p.work)
	}
	workers.Go(p.attend)
	committer.Go(p.commit)
	retirer.Go(p.retire)
	dispatch(p)
	close(p.items)
	close(p.clerk)
	workers.Wait()
	close(p.tasks)
	committer.Wait()
	close(p.done)
	retirer.Wait()
	return a.failed()
}

// serial is Once without any other goroutine.
func (a *Appliance) serial(ctx context.Context) error {
	a.stop = ctx
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
		for err == nil && len(group) > 0 {
			var done []*task
			if done, err = a.commit(group); err == nil {
				err = a.retire(done)
			}
			if err == nil {
				group = a.publish(group)
				err = a.failed()
			}
		}
		if err != nil {
			break
		}
		if a.freed.Swap(false) {
			if err = a.refresh(); err != nil {
				break
			}
		}
		a.spool.Retry()
		if items, err = a.spool.Next(a.cfg.Group); err == nil && len(items) == 0 {
			var done []*task
			if done, err = a.settle(); err == nil {
				err = a.retire(done)
			}
			break
		}
	}
	if err != nil {
		a.fail(err)
	}
	return err
}

// maxCommands and maxCommandBytes bound what waits for the clerk.
const (
	maxCommands     = 64
	maxCommandBytes = 64 << 20
)

// refer gives a command to the clerk. Where too many wait for him it comes again:
// nobody else is kept waiting for commands.
func (p *pipeline) refer(it *spool.Item) {
	size := int64(len(it.Data))
	if p.with.Load() > 0 && (len(p.clerk) == maxCommands || p.withBytes.Load()+size > maxCommandBytes) {
		p.a.spool.Return(it, true)
		return
	}
	p.with.Add(1)
	p.withBytes.Add(size)
	p.clerk <- it
}

// attend takes the commands of administrators, one after the other, beside the
// workers: one of them can take minutes, and while a backup is read no other may run.
// A command counts as under way for the others only when it is decided, so that no
// group waits for it.
func (p *pipeline) attend() {
	for it := range p.clerk {
		size := len(it.Data)
		t := p.take(it)
		if t != nil {
			t.size = size
			p.enter(size)
			p.ahead.Add(1)
			p.tasks <- t
		}
		p.withBytes.Add(-int64(size))
		p.with.Add(-1) // last: see finished
	}
}

// send gives an item to the workers when there is room for it.
func (p *pipeline) send(it *spool.Item) {
	if it.Company == setup.Administrators {
		p.refer(it)
		return
	}
	size := int64(len(it.Data))
	p.mu.Lock()
	for p.out.Load() > 0 && (p.out.Load() >= inFlight || p.bytes+size > bytesInFlight) {
		p.room.Wait()
	}
	p.mu.Unlock()
	p.enter(len(it.Data))
	p.ahead.Add(1)
	p.items <- it
}

// enter begins an item's time in the pipeline.
func (p *pipeline) enter(size int) {
	p.mu.Lock()
	p.bytes += int64(size)
	p.out.Add(1)
	p.mu.Unlock()
}

// leave ends an item's time in the pipeline.
func (p *pipeline) leave(size int) {
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
		if a.freed.Swap(false) {
			if err := a.refresh(); err != nil {
				a.fail(err)
				return
			}
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
	// The clerk's first: what he has done is out before he has it no more.
	if p.with.Load() == 0 && p.out.Load() == 0 && !p.a.spool.Unsettled() && !p.a.freed.Load() {
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

// take decides on an item. It returns nil for one that stays in the inbox or in work/,
// where a later look or the next start sees it.
func (p *pipeline) take(it *spool.Item) *task {
	a := p.a
	if a.failed() != nil || p.ctx.Err() != nil && !it.Claimed {
		return nil
	}
	t, err := a.take(it)
	if err != nil {
		a.fail(err)
	}
	return t
}

// work takes items until there are no more.
func (p *pipeline) work() {
	for it := range p.items {
		size := len(it.Data)
		t := p.take(it)
		if t == nil {
			p.ahead.Add(-1)
			p.leave(size)
			continue
		}
		t.size = size
		p.tasks <- t
	}
}

// commit gathers tasks into groups and commits them, until there are no more.
func (p *pipeline) commit() {
	wait := time.NewTimer(time.Hour)
	defer wait.Stop()
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for open := true; open; {
		var published chan struct{}
		if p.publishing != nil {
			published = p.publishing.ended
		}
		var group []*task
		select {
		case t, ok := <-p.tasks:
			if open = ok; ok {
				wait.Reset(p.a.cfg.Wait)
				group, open = p.gather(t, wait.C)
			}
		case <-published:
		case <-retry.C: // what could not be published may be possible now
		}
		p.flush(group)
	}
	// What has to be recorded anew now is a refusal and always finds a name.
	for p.publishing != nil {
		p.flush(nil)
	}
	p.flush(nil)
}

// gather collects a group that begins with t. open is false at the end of all
// tasks.
func (p *pipeline) gather(t *task, timeout <-chan time.Time) (group []*task, open bool) {
	for {
		p.ahead.Add(-1)
		group = append(group, t)
		if len(group) >= p.a.cfg.Group || p.ahead.Load() == 0 {
			return group, true
		}
		select {
		case t, open = <-p.tasks:
			if !open {
				return group, false
			}
		case <-timeout:
			return group, true
		}
	}
}

// flush commits a group and has it published. Without one it waits for the group
// before to be published, and makes that durable if nothing else is under way.
func (p *pipeline) flush(group []*task) {
	a := p.a
	// The sync that makes this group durable does the same for the one before.
	if p.publishing != nil {
		<-p.publishing.ended
		group = append(group, p.publishing.again...)
		p.publishing = nil
	}
	if a.failed() == nil && len(a.stuck) > 0 && len(group) == 0 {
		stuck := a.stuck
		a.stuck = nil
		group = a.publish(stuck)
		for _, t := range group {
			p.enter(t.size)
		}
	}
	var done []*task
	var err error
	if a.failed() == nil && len(group) > 0 {
		if done, err = a.commit(group); err == nil {
			p.publish(group)
			group = nil
		}
	} else if a.failed() == nil && p.out.Load() == 0 {
		done, err = a.settle()
	}
	for _, t := range group {
		a.unmake(t)
		p.leave(t.size)
	}
	if err != nil {
		a.fail(err)
	} else if len(done) > 0 {
		p.done <- done
	}
}

// publish begins to publish a group.
func (p *pipeline) publish(group []*task) {
	pub := &publishing{ended: make(chan struct{})}
	p.publishing = pub
	go func() {
		defer close(pub.ended)
		pub.again = p.a.publish(group)
		again := map[*spool.Item]bool{}
		for _, t := range pub.again {
			again[t.it] = true
		}
		for _, t := range group {
			if !again[t.it] {
				p.leave(t.size)
			}
		}
	}()
}

// retire puts away what is published for good, until there is no more.
func (p *pipeline) retire() {
	for done := range p.done {
		if p.a.failed() != nil {
			continue // they are found in work/, and answered with the same bytes
		}
		if err := p.a.retire(done); err != nil {
			p.a.fail(err)
		}
	}
}
