// The wall for readers without a subscription. Taken away, it comes back.
const wall = document.createElement('div');
wall.className = 'wall';
wall.innerHTML = `<div role="dialog" aria-modal="true" aria-labelledby="wall-title">
  <h2 id="wall-title">You have read your free stories for this month</h2>
  <p>Subscribe to go on reading, to comment, and to keep nine people and a printing press in work.</p>
  <p class="price">4 coins a month</p>
  <p><a class="primary" href="/join">Subscribe</a> &nbsp; <a href="/login">Already a subscriber? Log in</a></p>
</div>`;
const build = () => {
  document.documentElement.style.overflow = 'hidden';
  document.body.append(wall);
};
new MutationObserver(() => { if (!wall.isConnected) build(); }).observe(document.body, { childList: true });
build();
