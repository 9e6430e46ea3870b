// Package journal is the record of everything that the appliance decided, and its
// memory: which requests were answered, and which text was signed for a nonce. It
// knows no keys and no spool.
//
// # What it promises
//
// What Synced has confirmed is found by Request and Nonce from then on, whatever
// happens to the process or the power, as long as the files are there. A line that
// counts is never changed. A journal that was cut off, altered or put together from
// parts is refused, or reported by Verify. The last group is an exception until the
// next one is written or the appliance stops in order: that it was cut off, or altered
// and so not the one that was announced, cannot be told from a crash within its sync.
// It is void then, never altered.
//
// It keeps no secret: whoever can read it sees what was signed, and whoever can write
// all of it, the head included, can write another history. Against that an auditor
// notes the last hash from time to time.
//
// # Files
//
//	00000001.jsonl   lines, only ever appended; closed files are never touched again
//	00000002.jsonl
//	00000003.jsonl   the newest
//	00000003.head    how far the newest file is known to be durable
//
// A new file is begun at each start, when the newest has Options.MaxFile bytes, and
// after each write or sync that failed.
//
//	{"seq":1,"time":"2026-11-22T15:54:00.123456Z","event":"start","prev":"000…"}
//	{"seq":2,"time":"…","event":"signed","company":"acme",…,"prev":"SHA-256 of the line before, without its newline"}
//
// The first line of every file but the first also says what counts of the file
// before:
//
//	…,"previous":{"file":"00000002.jsonl","size":1234,"void":56},"prev":"…"}
//
// Its first 1234 bytes count, and prev is the hash of the last line within them. The
// 56 bytes behind them were torn by a crash, or given up after a failed sync: void.
// They stay, as evidence; fewer may be left of them, never more. So damage is
// repaired by what the next file says, and nothing is rewritten.
//
// Lines of kind "line" belong to the first line after them that is of another kind,
// their verdict.
//
// A line with a signature counts those of its wallet: "uses":1, 2, 3, … without a gap,
// across files and starts. The numbers of a group that is abandoned or torn are given
// again, as it does not count. The index finds the newest signature of a wallet, whose
// line has the number.
//
// # Head
//
// Each Write also notes in the head what was durable before it, and the size and hash
// to which its group brings the file. That becomes durable with the same sync as the
// group and costs none of its own. Close notes the exact end. At a start
//
//   - the lines that the head says were durable must be there, whole and chained:
//     otherwise the journal was altered, and is refused;
//   - the group that it announces counts if it is there exactly as announced;
//   - what else there is, a group that was cut off above all, is void. Its sync has
//     not ended, so that nothing of it was made visible.
//
// # States
//
// Every set of names that a crash can leave, n being the newest file. Everything
// else is refused, with the name of what is missing or too much.
//
//	   names                                         left by a crash
//	1  none                                          before the first begin; only with AllowNew
//	2  1…n.jsonl, n.head                             in normal work
//	3  1…n.jsonl, n.head.new                         between the two moves of a begin, head's lost
//	4  2 or 3, and (n+1).jsonl.new, (n+1).head.new   before the moves; either, both, in any state
//	5  2 or 3, and (n+1).jsonl.new, (n+1).head       between the two moves
//	6  2 to 5, and older .head or .head.new          before they were removed
//
// In 4 and 5 the new file is thrown away; it holds nothing but its first line. State 1
// can have the files of 4 and 5 as well. A head whose file is not there under either
// name is refused: the file was there when the head got its name.
//
// # Group commit
//
//	Write(group)     lines and head, not synced
//	vol.Sync()       by the caller, for the answers and the journal at once
//	Synced()         the group counts and is found
//
// If one of the first two fails: Abandon, and the whole group anew.
package journal

// BUG(journal): After a failed sync Linux may show bytes that the disk does not have.
// Abandon deals with that. If the process ends between the failed sync and Abandon,
// and starts again without the machine having been restarted, the start believes those
// bytes, and a later power cut takes them away from under lines that follow. The next
// start then refuses the journal; it never gives a wrong answer. Copying the tail to
// the new file would close the gap, but an auditor who had noted the hash of a line in
// it would find that line void.
