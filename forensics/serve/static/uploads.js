// Files on their way to the server: in order, with progress, as many as it has places for.

// `changed(upload)` is called whenever an upload's state, bytes or message change; an upload that
// has arrived carries the server's `job`.
export function uploader(changed) {
  const waiting = [];
  let sending = null;
  let places = 1;

  function next() {
    if (!sending && places > 0 && waiting.length) send(waiting.shift());
  }

  function update(upload, changes) {
    Object.assign(upload, changes);
    changed(upload);
  }

  function send(upload) {
    sending = upload;
    places -= 1;
    const request = new XMLHttpRequest(); // fetch tells nothing about an upload's progress
    upload.request = request;
    const finished = (changes) => {
      sending = null;
      upload.request = null;
      update(upload, changes);
      next();
    };
    request.upload.addEventListener("progress", (event) => update(upload, { sent: event.loaded }));
    request.addEventListener("load", () => {
      const answer = parsed(request.responseText);
      if (request.status === 201) return finished({ state: "arrived", job: answer });
      if (request.status === 429 && !upload.cancelled) {
        places = 0; // somebody else was faster
        waiting.unshift(upload);
        return finished({ state: "waiting", sent: 0 });
      }
      return finished({ state: "refused", message: reason(answer, request.status) });
    });
    request.addEventListener("error", () =>
      finished({ state: "refused", message: "it could not be sent: is it a folder, or was the server stopped?" }),
    );
    request.addEventListener("abort", () => finished({ state: "cancelled" }));
    request.open("POST", `/api/jobs?name=${encodeURIComponent(upload.name.slice(-500).toWellFormed?.() ?? "unnamed")}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    update(upload, { state: "sending", sent: 0 });
    request.send(upload.file);
  }

  return {
    add(file, mostBytes) {
      const upload = { file, name: file.name, size: file.size, sent: 0, state: "waiting", message: null, request: null, job: null, cancelled: false };
      if (mostBytes !== null && file.size > mostBytes) {
        upload.state = "refused";
        upload.message = `larger than ${Number((mostBytes / 2 ** 20).toFixed(1))} MB, the most this server takes`;
      } else {
        waiting.push(upload);
      }
      changed(upload);
      next();
      return upload;
    },
    current() {
      return sending;
    },
    // What the server said last about its queue.
    offer(free) {
      places = free;
      next();
    },
    cancel(upload) {
      upload.cancelled = true;
      const place = waiting.indexOf(upload);
      if (place >= 0) waiting.splice(place, 1);
      if (upload.request) upload.request.abort();
      else update(upload, { state: "cancelled" });
    },
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function reason(answer, status) {
  return typeof answer?.detail === "string" ? answer.detail : `the server answered ${status}`;
}
