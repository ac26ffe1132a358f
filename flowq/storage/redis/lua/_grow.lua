-- Nodes that become plans (Expand). What one brings with it is packed by rows.growth:
--   base 4, flags of its record 1, inner 4, entries (how many ranges 4, ranges), body (the same),
--   value (length 4), tolerate 4, need 4, most 4, deadline 6, how many groups 2, those (length 4),
--   what goes along (length 4), names of queues (length 4, "\0" behind each), how many rows 4, for each: length 4, row
-- The rows are the last of the fragment; those before them were stored by grow.lua under the
-- reservation of this delivery: field 'x' and index of n:<run> holds delivery 4, base 4, rows 4.
-- Field 'X' hides what is reserved for a fragment of several pages until its last: base 4, rows 4 each.

local function expand(id, row, delivery, data)
  -- `edges` are those that few have: lenient ones, to followers, from those it follows; and its limits.
  local function pack_more(edges, bounds, count, groups)
    local tolerate, need, most, deadline, along = unpack(bounds)
    local lenient, led, follows, limits = unpack(edges)
    if #lenient + #led + #follows + #along + #limits + tolerate + need + most + deadline + count == 0 then return '' end
    local more = pack('>I4I4HI4I4I6I4HI4I4I4HI4', #lenient / 8, tolerate, count, need, most, deadline, 0, 0, 0,
                      #led / 8, #follows / 8, #along / 16, #limits)
      .. lenient .. led .. follows .. along .. limits .. groups
    return more .. pack('>I4', #more)
  end

  -- A row with edges and value of its own in the place of a queue and times, its message kept.
  local function expansion_row(row, inner, entries, body, value, bounds, count, groups)
    local off = offset_of(row)
    local special, c, rd, e, p, v, n, q = byte(row, 5), unpack_('>I4I4I4I4I4BB', row, 20)
    local at = 42
    local children = sub(row, at, at + 8 * c - 1)
    at = at + 8 * c
    local reads = sub(row, at, at + 8 * rd - 1)
    at = at + 8 * (rd + e)
    local parents = sub(row, at, at + 8 * p - 1)
    at = at + 8 * p + v
    local name = sub(row, at, at + n - 1)
    -- what stands in it already is to follow its own failure, last
    local kept, rule = 0, ''
    if has(special, 16) then
      local last = off - ((has(special, 1) or has(special, 4)) and 24 or 0)
      kept, rule = 16, sub(row, last - 19, last)
    end
    local from, ranges = phases().body_of(row)
    local follows, edges = sub(row, from, from + 8 * ranges - 1), {'', '', '', ''}
    local old = phases().more_of(row)
    if old then
      edges = {sub(row, old.lenient, old.owns - 1), sub(row, old.followers, old.followed - 1),
               sub(row, old.followed, old.ties - 1),
               sub(row, old.limits, old.limits + old.limited - 1)}
      count, groups = count + #old.groups, groups .. sub(row, old.at, phases().tail_of(row) - 4)
    end
    local more = pack_more(edges, bounds, count, groups)
    if more ~= '' then kept = kept + 32 end
    if bounds[4] > 0 then kept = kept + 64 end
    local rest = children .. reads .. entries .. parents .. value .. name .. follows .. body .. more .. rule
    return pack('>IBB', 41 + #rest, kept, 1) .. sub(row, 7, 15)
      .. pack('>I4I4I4I4I4I4BB', inner, c, rd, #entries / 8, p, #value, n, 0) .. rest .. sub(row, off + 1)
  end

  -- The same for a task alone: the root of its run, named by its task.
  local function root_row(row, inner, entries, body, value, bounds, count, groups)
    local name = sub(task_of(row), 1, 200)
    local more = pack_more({'', '', '', ''}, bounds, count, groups)
    local rest = entries .. value .. name .. body .. more
    local special = (more ~= '' and 32 or 0) + (bounds[4] > 0 and 64 or 0)
    return pack('>IBBBBB', 41 + #rest, special, 1, 0, 0, byte(row, 6)) .. sub(row, 7, 8) .. pack('>I4', NONE)
      .. pack('>I4I4I4I4I4I4BB', inner, 0, 0, #entries / 8, 0, #value, #name, 0)
      .. rest .. sub(row, offset_of(row) + 1), name
  end

  -- Takes a reservation out of what is hidden.
  local function unhide(r, base)
    local hidden = call('HGET', r.n, 'X')
    if not hidden then return end
    local left = {}
    for at = 1, #hidden, 8 do
      if unpack_('>I4', hidden, at) ~= base then left[#left + 1] = sub(hidden, at, at + 7) end
    end
    if #left > 0 then call('HSET', r.n, 'X', table.concat(left)) else call('HDEL', r.n, 'X') end
  end

  local base, flags, inner, ne = unpack_('>I4BI4I4', data)
  local at = 14
  local entries = sub(data, at, at + 8 * ne - 1)
  at = at + 8 * ne
  local nb = unpack_('>I4', data, at)
  local body = sub(data, at + 4, at + 3 + 8 * nb)
  at = at + 4 + 8 * nb
  local nv = unpack_('>I4', data, at)
  local value = sub(data, at + 4, at + 3 + nv)
  at = at + 4 + nv
  local tolerate, need, most, deadline, ng, groups_size = unpack_('>I4I4I4I6HI4', data, at)
  local groups = sub(data, at + 24, at + 23 + groups_size)
  at = at + 24 + groups_size
  local na = unpack_('>I4', data, at)
  local bounds = {tolerate, need, most, deadline, sub(data, at + 4, at + 3 + na)}
  at = at + 4 + na
  local nq = unpack_('>I4', data, at)
  local queues = sub(data, at + 4, at + 3 + nq)
  at = at + 4 + nq
  local total, count = unpack_('>I4I4', data, at)
  at = at + 8
  local fields = {}
  for k = 1, count do
    local n = unpack_('>I4', data, at)
    fields[#fields + 1] = pack('>I4', base + total - count + k - 1)
    fields[#fields + 1] = sub(data, at + 4, at + 3 + n)
    at = at + 4 + n
  end
  local records = sub(data, at)
  local single = #id == 16
  local r = run_of(sub(id, 1, 16))
  local i = single and 0 or unpack_('>I4', id, 17)
  local _, attempt, losses, _, since = record_of(id)
  local delivered = pack('>I4', delivery)
  local is_there
  if single then
    is_there = call('HGET', r.n, 'u') == delivered
    -- what a lost delivery has left
    if not is_there and count == total then is_there = call('UNLINK', r.n, r.c) >= 0 end
  else
    is_there = call('HGET', r.n, 'x' .. sub(id, 17)) == delivered .. pack('>I4I4', base, total)
  end
  if not is_there then -- it took so long that what was stored of it is gone: it runs again
    remember(id, delivery, attempt, losses, 1, since)
    return give_back(id, row, losses)
  end
  local become
  if single then
    local name
    become, name = root_row(row, inner, entries, body, value, bounds, ng, groups)
    local result, failed = ttls(row)
    call('HSET', r.n, 'r', pack('>I6I6I6I4', now, result, failed, total + 1) .. name, 'q', '')
    call('HDEL', r.n, 'u')
    call('PERSIST', r.n)
    -- it might first run when it was called, as its id says; that of a key does not
    local called = now
    if math.floor(byte(id, 7) / 16) == 7 then called = math.min(now, (unpack_('>I6', id))) end
    call('SETRANGE', r.c, 0, pack('>BBBBI4I4I6I4I4I4H', EXPANDED, 0, 2, 255, NONE, inner, called, 0, 0, 0, 0))
    local number = call('INCR', P .. 'runs:n')
    call('ZADD', P .. 'runs', number, r.id)
    call('SADD', P .. 'active', r.id)
    forget(id)
    id = id .. '\0\0\0\0'
  else
    become = expansion_row(row, inner, entries, body, value, bounds, ng, groups)
    local head = call('HGET', r.n, 'r')
    local nodes = unpack_('>I4', head, 19) + total
    call('HSET', r.n, 'r', sub(head, 1, 18) .. pack('>I4', nodes) .. sub(head, 23))
    if total > 0 then unhide(r, base) end -- an empty one has the place of the next
    call('HDEL', r.n, 'x' .. sub(id, 17))
    local was = node(r, i) -- as it is made anew in another generation
    call('HSET', r.n, 'o' .. sub(id, 17), string.char(was.flags, was.lane) .. row)
  end
  if count > 0 then
    many('HSET', r.n, fields)
    call('SETRANGE', r.c, (base + total - count) * 32, records)
  end
  if single then call('PERSIST', r.c) end
  call('HSET', r.n, pack('>I4', i), become)
  r.rows[i] = become
  for queue in string.gmatch(queues, '(.-)%z') do call('SADD', P .. 'q', queue) end
  remember(id, delivery, attempt, losses, 1, since)
  timeless[#timeless + 1] = id
  local x = node(r, i)
  if has(x.flags, 32) then limits().leave(r, x) end
  x.state = EXPANDED
  if not has(x.flags, 2) then x.flags = x.flags + 2 end
  if flags > 0 and not has(x.flags, flags) then x.flags = x.flags + flags end
  if has(byte(become, 5), 32) and not has(x.flags, 32) then x.flags = x.flags + 32 end
  guard(r, x, become)
  x.more = nil
  if na > 0 then alongs().tie(r, become) end
  if deadline > 0 then extras().set_deadline(r, x) end
  x.lane = 255 -- tells that it was a task
  x.a, x.b, x.c, x.d, x.n = inner, 0, 0, 0, NONE
  dirty(r, x)
  if x.flags >= 160 then alongs().tell_followers(r, x) end
  if inner == 0 then end_expansion(r, x) else spread_entries(r, x) end
end
