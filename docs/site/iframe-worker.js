// Pages that are opened as files may start no worker: their search runs in an empty frame instead.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {   // the search asks for the first name
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inner = frame.contentWindow
      this.inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const load = one => new Promise((done, failed) => {
        const script = frame.contentDocument.createElement("script")
        script.src = new URL(one, document.baseURI)
        script.onload = done
        script.onerror = failed
        frame.contentDocument.body.append(script)
      })
      this.inner.importScripts = (...urls) =>
        urls.reduce((before, one) => before.then(() => load(one)), Promise.resolve())
      this.ready = load(url)
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new this.inner.MessageEvent("message", { data })))
    }
  }
}
