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

  local function end_deadline(id)
    if call('ZREM', P .. 's', id) == 1 then call('DECR', P .. 's:o') end
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
    if most == 0 or has(x.flags, 64) then return judge(r, x) end
    local places = places_of(r, o)
    if places[1] >= most then return end
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

  -- Lets entries begin while there are places; gives how many it looked at, and whether that is all.
  local function fill(r, o, row, edges)
    o.fills = nil
    local most, looked = most_of(r, o), 0
    if most == 0 or o.state ~= EXPANDED or has(o.mode, CLOSING) then return 0, true end
    local c, rd, e = unpack_('>I4I4I4', row, 20)
    local at, places = 42 + 8 * (c + rd), places_of(r, o)
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

  -- Starts a join that has what few have: it ends now, or sleeps.
  local function start_join(r, x)
    local more = more_at(r, x)
    if more.time > 0 then
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
        call('DECR', P .. 's:o')
        pass_deadline(r, x)
      elseif x and x.state == QUEUED then
        pass(r, x)
      end
    end
    page = PAGE
    walk()
  end

  more_rare = {
    clear = clear, fill = fill, flag = flag, free = free, has_enough = has_enough, has_flag = has_flag,
    is_unwanted = is_unwanted, lost_cell = lost_cell, most_of = most_of, need_of = need_of,
    outcome = outcome, overdue_text = overdue_text, rouse = rouse, set_deadline = set_deadline,
    start_join = start_join, stopped_as = stopped_as, wake_up = wake_up, weigh = weigh, win = win,
  }
  return more_rare
end
