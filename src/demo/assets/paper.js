// Reading progress, and a button that can't be pressed twice.
const bar = document.getElementById('progress');
if (bar) {
  const show = () => {
    const room = document.documentElement.scrollHeight - innerHeight;
    bar.style.width = room > 0 ? `${(100 * scrollY) / room}%` : '0';
  };
  addEventListener('scroll', show, { passive: true });
  show();
}
for (const form of document.querySelectorAll('form.comment-form[method=post]')) {
  form.addEventListener('submit', (event) => {
    const button = event.submitter;
    if (!button || event.defaultPrevented) return;
    // After the form's data has been gathered: a disabled button would not be sent.
    setTimeout(() => { button.disabled = true; });
  });
}
addEventListener('pageshow', () => {
  for (const button of document.querySelectorAll('form.comment-form :disabled')) button.disabled = false;
});
addEventListener('message', (event) => {
  const { height } = event.data ?? {};
  for (const frame of document.querySelectorAll('iframe.thread')) {
    if (frame.contentWindow === event.source && height > 0) frame.height = Math.ceil(height);
  }
});
