package journal

// AppendEvent is appendEvent, for a benchmark.
var AppendEvent = appendEvent
