-- What few nodes have, in the words of storage/base.py: races, needs, bounds, and what is due. Fields of
-- n:<run>, each with the index: 'l' it has lost a race and goes on for a while, 't' it was overdue while
-- it ran, 'm' how many of its body are under way (4) and how many entries are behind the next (4).
local more_rare

function extras()
  if more_rare then return more_rare end
  local p = phases()
  local more_of, more_at, close = p.more_of, p.more_at, p.close

  -- Whether a node bears a flag, 'l' or 't'.
  local function has_flag(r, kind, i)
    r.flags = r.flags or {}
    local field = kind .. pack('>I4', i)
    if r.flags[field] == nil then r.flags[field] = call('HEXISTS', r.n, field) == 1 end
    return r.flags[field]
  end

  -- Gives it one, which is kept if others than this script must know.
  local function flag(r, kind, i, kept)
    local field = kind .. pack('>I4', i)
    r.flags = r.flags or {}
    r.flags[field] = true
    if not kept then return end
    r.kept = r.kept or {}
    r.kept[#r.kept + 1] = field
    r.kept[#r.kept + 1] = ''
  end

  -- It runs again: nothing is known of it.
  local function clear(r, i)
    local i4 = pack('>I4', i)
    if r.flags then r.flags['l' .. i4], r.flags['t' .. i4] = nil, nil end
    call('HDEL', r.n, 'l' .. i4, 'm' .. i4, 't' .. i4)
  end

  -- How many successes an expansion needs, if it is the turn of its body; it counts them where others
  -- count cancels. 0 if it has no need.
  local function need_of(r, o) return o.mode < PASSED and more_at(r, o).need or 0 end

  local function has_enough(r, o)
    local need = need_of(r, o)
    return need > 0 and o.d >= need
  end

  -- A node of its body succeeded.
  local function win(r, o)
    local need = need_of(r, o)
    if need == 0 then return end
    o.d = o.d + 1
    if o.d >= need and not has(o.mode, CLOSING) then close(r, o) end
  end

  -- Whether a node ends skipped, however it ends; `o` is the expansion around it.
  local function is_unwanted(r, o, i, phase, bits)
    if has(bits, 16) and has_flag(r, 'l', i) then return true end
    return phase == 0 and o and o.state == EXPANDED and has_enough(r, o)
  end

  -- Delivery and start that a cell tells of.
  local function ran(cell)
    if #cell < 21 then return 0, 0 end
    local _, delivery, started = unpack_('>BI4I8', cell)
    return delivery, started
  end

  -- The cell of what is not wanted, whatever it came to.
  local function lost_cell(cell) return cell_of(SKIPPED, 'lost', ran(cell)) end

  local function overdue_text(r, i)
    local text = "DeadlineExceeded('its deadline has passed')"
    return failure(r.id .. pack('>I4', i), row_of(r, i), 'deadline', '', text)
  end

  -- How a body ends that was stopped, given the cell of that: state and cell.
  local function stopped_as(id, cell)
    if #id == 20 then
      local r, i = run_of(sub(id, 1, 16)), (unpack_('>I4', id, 17))
      if has_flag(r, 't', i) then return FAILED, cell_of(FAILED, overdue_text(r, i), ran(cell)) end
    end
    return CANCELLED, cell
  end

  -- Lets one who waits for work look when something is due next; who steps is told so anyway.
  local function rouse(r)
    if r.roused then return end
    r.roused = true
    local queues = {}
    for k, lane in ipairs(lanes_of(r)) do queues[k] = lane[1] end
    if #queues == 0 then queues = call('SMEMBERS', P .. 'q') end
    for _, queue in ipairs(queues) do call('ZADD', P .. 'k:' .. queue, 0, 1) end
  end

  local function set_due(r, id, at)
    call('ZADD', P .. 's', at, id)
    if next(served) == nil then rouse(r) end
  end

  -- An expansion begins that may have a deadline. That is among what is due with an "o" behind its id;
  -- `s:o` counts those, since they are nothing that is scheduled.
  local function set_deadline(r, x)
    local more = more_at(r, x)
    if more.time == 0 then return end
    local id = r.id .. pack('>I4', x.i) .. 'o'
    if not call('ZSCORE', P .. 's', id) then call('INCR', P .. 's:o') end
    set_due(r, id, now + more.time)
  end

  local function count_off()
    if call('DECR', P .. 's:o') == 0 then call('DEL', P .. 's:o') end
  end

  local function end_deadline(id)
    if call('ZREM', P .. 's', id) == 1 then count_off() end
  end

  -- It passed: stops what is left of the body, if that still runs.
  local function pass_deadline(r, x)
    if not x or x.state ~= EXPANDED or x.mode % 4 > 0 or has(x.mode, STOPPED) then return end
    flag(r, 't', x.i, true)
    close(r, x, true)
  end

  -- The outcome of an expansion with a need or a deadline.
  local function outcome(r, x, more)
    if more.time > 0 then end_deadline(r.id .. pack('>I4', x.i) .. 'o') end
    if has(x.mode, STOPPED) then return CANCELLED end
    if more.time > 0 and has_flag(r, 't', x.i) then
      x.n = x.i
      return FAILED
    end
    if more.need == 0 then return outcome_of(x, more.tolerate, false) end
    if has_enough(r, x) then return SUCCESS end
    if x.n == NONE then x.n = x.i end -- nothing failed, yet too few succeeded
    return FAILED
  end

  -- How many nodes of the body of an expansion may be under way, if it is the turn of that; 0 if all.
  local function most_of(r, o)
    return o.flags >= 160 and o.mode < PASSED and more_at(r, o).most or 0
  end

  -- Of a bounded expansion: how many are under way, and how many of its entries are behind the one that
  -- begins next.
  local function places_of(r, o)
    if not o.places then
      local raw = call('HGET', r.n, 'm' .. pack('>I4', o.i))
      o.places = {0, 0}
      if raw then o.places[1], o.places[2] = unpack_('>I4I4', raw) end
    end
    if not o.places.changed then
      o.places.changed = true
      r.places = r.places or {}
      r.places[#r.places + 1] = o
    end
    return o.places
  end

  -- Looks at the rule of a node, if there is a place for it.
  local function weigh(r, o, x)
    local most = most_of(r, o)
    local goes_along = alongs().goes(r, o, x)
    if goes_along then alongs().count_now(r, x) end
    if most == 0 or has(x.flags, 64) then return judge(r, x) end
    if goes_along and verdict(r, x) ~= QUEUED then return judge(r, x) end
    local places = places_of(r, o)
    if places[1] >= most then return goes_along and alongs().set_able(r, o, x) end
    local taken = places[1] + 1
    places[1] = taken
    judge(r, x)
    if x.state >= SUCCESS and places[1] == taken then places[1] = taken - 1 end -- a join took no time
  end

  -- A node ended that was under way in an expansion: the next may begin.
  local function free(r, o)
    if most_of(r, o) == 0 then return end
    local places = places_of(r, o)
    if places[1] > 0 then places[1] = places[1] - 1 end
    if o.state == EXPANDED and not has(o.mode, CLOSING) and not o.fills then
      o.fills = true
      spread(r, o.i, FILL, NONE)
    end
  end

  -- How an expansion begins: by which cursor.
  local function first_of(r, x)
    if more_at(r, x).along > 0 then return ENTRIES end
    return most_of(r, x) > 0 and FILL or EXPANDED
  end

  -- Lets entries begin while there are places; gives how many it looked at, and whether that is all.
  local function fill(r, o, row, edges)
    o.fills = nil
    local most, looked = most_of(r, o), 0
    if most == 0 or o.state ~= EXPANDED or has(o.mode, CLOSING) then return 0, true end
    local c, rd, e = unpack_('>I4I4I4', row, 20)
    local at, places = 42 + 8 * (c + rd), places_of(r, o)
    if more_at(r, o).along > 0 then return alongs().fill(r, o, most, places, edges) end
    local skip = places[2]
    for k = 0, e - 1 do
      local first, n = unpack_('>I4I4', row, at + 8 * k)
      while skip < n and places[1] < most and o.state == EXPANDED do
        if looked >= edges then return looked, false end
        local count = math.min(n - skip, most - places[1], edges - looked, AT_ONCE)
        if count > 1 then read_nodes(r, first + skip, count) end
        for j = first + skip, first + skip + count - 1 do
          local x = node(r, j)
          places[2] = places[2] + 1
          if x and x.state == WAITING then weigh(r, o, x) end
        end
        skip, looked = skip + count, looked + count
      end
      if skip < n then break end
      skip = skip - n
    end
    return looked, true
  end

  -- The first parent of a race, by index, that succeeded.
  local function winner_of(r, row)
    local c, rd, e, n_parents = unpack_('>I4I4I4I4', row, 20)
    local at, done = 42 + 8 * (c + rd + e), p.done_here(r)
    for k = 0, n_parents - 1 do
      local first, n = unpack_('>I4I4', row, at + 8 * k)
      for from = first, first + n - 1, PAGE do
        local last = math.min(from + PAGE, first + n) - 1
        local raw = call('GETRANGE', r.c, from * 32, last * 32 + 31)
        for j = from, last do
          local x = r.nodes[j]
          local state = done[j] and SUCCESS or x and x.state or byte(raw, (j - from) * 32 + 1)
          if state == SUCCESS then return j end
        end
      end
    end
    return NONE
  end

  local function pass(r, x)
    if p.is_race(r, x) then
      local row = row_of(r, x.i)
      local value = '\147\161r' .. cmsgpack.pack(winner_of(r, row)) .. '\144' -- Ref, message.py
      finish(r, x, SUCCESS, cell_of(SUCCESS + TEMPLATE, value), ZERO5, NONE)
      if more_at(r, x).owned > 0 then spread(r, x.i, LOSE, NONE) end
    else
      finish(r, x, SUCCESS, cell_of(SUCCESS + EMPTY, ''), ZERO5, NONE)
    end
  end

  -- Whether what is sent `to` some is for a node of that name.
  local function is_to(to, name) return to == '' or to == name or sub(name, 1, #to + 1) == to .. '/' end

  -- What was sent is kept by its name and for whom it is: a field with the numbers (4 each), so that a
  -- node looks at nothing that is not for it.
  local function kept_at(name, to) return 'kept: ' .. name .. '\0' .. to end

  -- The first thing that was sent for a node, and kept for it, is taken; gives the body of its cell.
  local function take_sent(r, x, signal)
    local name = name_of(row_of(r, x.i))
    local fields, at = {kept_at(signal, ''), kept_at(signal, name)}, string.find(name, '/', 1, true)
    while at do
      fields[#fields + 1] = kept_at(signal, sub(name, 1, at - 1))
      at = string.find(name, '/', at + 1, true)
    end
    local kept, number, from = call('HMGET', r.n, unpack(fields)), nil, nil
    for k = 1, #fields do
      local first = kept[k] and unpack_('>I4', kept[k])
      if first and (not number or first < number) then number, from = first, k end
    end
    if not number then return nil end
    local left, field = sub(kept[from], 5), 'i' .. pack('>I4', number)
    if left == '' then call('HDEL', r.n, fields[from]) else call('HSET', r.n, fields[from], left) end
    local sent = call('HGET', r.n, field)
    call('HSET', r.n, field, sub(sent, 1, 6) .. pack('>I4', x.i) .. sub(sent, 11))
    local a, b, c, d = unpack_('>HHHH', sent, 11)
    return sub(sent, 19 + a + b + c + d)
  end

  -- Members of j:<run>: index 4, signal, "\0", name of the node.
  local function waiter(r, x)
    return pack('>I4', x.i) .. more_at(r, x).signal .. '\0' .. name_of(row_of(r, x.i))
  end

  -- The node that has waited longest for what is sent now.
  local function waiter_for(r, name, to)
    local at = 0
    while true do
      local page = call('ZRANGE', P .. 'j:' .. r.id, at, at + 999)
      for _, member in ipairs(page) do
        local gap = string.find(member, '\0', 5, true)
        if sub(member, 5, gap - 1) == name and is_to(to, sub(member, gap + 1)) then
          return node(r, (unpack_('>I4', member)))
        end
      end
      if #page < 1000 then return nil end
      at = at + 1000
    end
  end

  -- It waits no more, however it ended.
  local function end_wait(r, x, kept)
    call('ZREM', P .. 'j:' .. r.id, waiter(r, x))
    if not kept then forget(r.id .. pack('>I4', x.i)) end
  end

  local function time_out(r, x)
    local row = row_of(r, x.i)
    local c, rd, e, n_parents, v = unpack_('>I4I4I4I4I4', row, 20)
    if v > 0 then
      local at = 42 + 8 * (c + rd + e + n_parents)
      return finish(r, x, SUCCESS, cell_of(SUCCESS, sub(row, at, at + v - 1)), ZERO5, NONE)
    end
    local text = "WaitTimeout('nobody sent " .. more_at(r, x).signal .. " in time')"
    local body = failure(r.id .. pack('>I4', x.i), row, 'timeout', '', text)
    finish(r, x, FAILED, cell_of(FAILED, body), ZERO5, x.i)
  end

  -- Starts a join that waits for what is sent.
  local function await(r, x, more)
    local body = take_sent(r, x, more.signal)
    if body then return finish(r, x, SUCCESS, cell_of(SUCCESS, body), ZERO5, NONE) end
    x.state = QUEUED
    call('ZADD', P .. 'j:' .. r.id, now, waiter(r, x))
    local id = r.id .. pack('>I4', x.i)
    if more.time > 0 then set_due(r, id, now + more.time) else call('ZADD', P .. 's', '+inf', id) end
  end

  -- Starts a join that has what few have: it ends now, or sleeps, or waits.
  local function start_join(r, x)
    local more = more_at(r, x)
    if more.signal ~= '' then
      await(r, x, more)
    elseif more.time > 0 then
      x.state = QUEUED
      set_due(r, r.id .. pack('>I4', x.i), now + more.time)
    else
      pass(r, x)
    end
  end

  -- Ends joins that have slept and stops what is overdue, and does a page of what that lets go on.
  local function wake_up(ids)
    for _, id in ipairs(ids) do
      local r = run_of(sub(id, 1, 16))
      local x = node(r, (unpack_('>I4', id, 17)))
      if #id == 21 then
        count_off()
        pass_deadline(r, x)
      elseif x and x.state == QUEUED then
        if more_at(r, x).signal ~= '' then time_out(r, x) else pass(r, x) end
      end
    end
    page = PAGE
    walk()
  end

  -- Ends what would start, and is blocked from the start.
  local function block(r, x)
    x.ready = 0
    finish(r, x, BLOCKED, cell_of(BLOCKED, more_at(r, x).blocked), ZERO5, x.i)
  end

  -- Keeps back one that was popped from its list, since its run is paused.
  local function hold(id)
    local r = run_of(sub(id, 1, 16))
    local x = node(r, (unpack_('>I4', id, 17)))
    if not x or x.state ~= QUEUED then return end
    if has(x.flags, 32) then limits().leave(r, x) end
    x.state = HELD
    dirty(r, x)
    r.held = r.held or {}
    r.held[#r.held + 1] = sub(id, 17)
  end

  -- Lets a run go on that is paused.
  local function go_on(r)
    if call('HDEL', r.n, 'P') == 0 then return end
    call('SREM', P .. 'paused', r.id)
    spread(r, 0, RESUME, NONE)
  end

  -- Queues some of what is held; gives how many it looked at, and whether that is all.
  local function release(r, edges)
    local key = P .. 'b:' .. r.id
    local held = call('LRANGE', key, 0, edges - 1)
    table.sort(held)
    for _, i4 in ipairs(held) do
      local x = node(r, (unpack_('>I4', i4)))
      if x and x.state == HELD and not parks().is_over(r, x.i) and limits().enter(r, x) then limits().queue(r, x) end
    end
    if #held > 0 then call('LTRIM', key, #held, -1) end
    return #held, #held < edges
  end

  more_rare = {
    block = block, clear = clear, end_wait = end_wait, fill = fill, first_of = first_of, flag = flag, free = free,
    go_on = go_on, has_enough = has_enough, has_flag = has_flag, hold = hold,
    is_unwanted = is_unwanted, kept_at = kept_at, lost_cell = lost_cell, most_of = most_of,
    need_of = need_of, outcome = outcome, overdue_text = overdue_text, places_of = places_of,
    release = release, rouse = rouse, set_deadline = set_deadline, start_join = start_join,
    stopped_as = stopped_as, waiter_for = waiter_for, wake_up = wake_up, weigh = weigh, win = win,
  }
  return more_rare
end
