#!lua flags=no-writes
-- nodes: what is known of neighbouring nodes of a run.
-- Keys    1 sessions (zset)
-- Args    1 now  2 run  3 first  4 how many (at most 500)
-- Gives   records, and for each: row without its message, task, head of its cell or "",
--         attempts, losses, 1 scheduled or 0, handed out at (ms) or 0, limit at which it waits,
--         if it is parked its state or that it runs, else 0
-- Cost    O(nodes * sessions)
-- Repeat  reads only
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
-- @include _ended
-- @include _finish
-- @include _phases
-- @include _extras
-- @include _along
-- @include _limits
-- @include _parks
-- @include _back
local run, first, count = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local raw = call('GETRANGE', P .. 'c:' .. run, first * 32, (first + count) * 32 - 1)
count = math.floor(#raw / 32)
if count == 0 or call('HEXISTS', P .. 'n:' .. run, 'u') == 1 or is_past(run, byte(raw)) then
  return {''}
end
local fields, open, places = {}, {}, {}
for k = 0, count - 1 do fields[k + 1] = pack('>I4', first + k) end
local rows = call('HMGET', P .. 'n:' .. run, unpack(fields))
local hidden = call('HGET', P .. 'n:' .. run, 'X') or ''
for at = 1, #hidden, 8 do
  local from, n = unpack_('>I4I4', hidden, at)
  for k = math.max(1, from - first + 1), math.min(count, from + n - first) do rows[k] = false end
end
local cells = call('HMGET', P .. 'v:' .. run, unpack(fields))
local out = {raw}
for k = 1, count do
  local row, cell = rows[k] or '', cells[k] and sub(cells[k], 6, 30) or ''
  local one = {'', '', cell, 0, 0, 0, 0, '', 0}
  if row ~= '' then
    one[1] = sub(row, 1, offset_of(row))
    one[2] = task_of(row)
    if has(byte(row, 7), 4) then
      local over = call('HGET', P .. 'n:' .. run, 'p' .. fields[k])
      one[9] = over and byte(over) or RUNNING
    end
  end
  local state = byte(raw, (k - 1) * 32 + 1)
  local id, _ = run .. fields[k]
  if state >= HELD and state <= EXPANDED then _, one[4], one[5] = record_of(id) end
  if state == HELD and has(byte(row, 5), 32) then
    local r = run_of(run)
    one[8] = limits().waits_at(r, node(r, first + k - 1))
  end
  if state == QUEUED then
    if call('ZSCORE', P .. 's', id) then
      one[6] = 1
    else
      open[#open + 1] = id
      places[#places + 1] = one
    end
  end
  out[k + 1] = one
end
local held = phases().holders(open)
for k, id in ipairs(open) do
  if held[id] then places[k][7] = (unpack_('>I6', held[id][2], 6)) end
end
return out
