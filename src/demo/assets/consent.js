// Asks once whether cookies may be set, and lies over the page until it is told.
if (!/(^|; )consent=/.test(document.cookie)) {
  const layer = document.createElement('div');
  layer.className = 'consent';
  layer.id = 'cookie-consent';
  layer.innerHTML = `<div role="dialog" aria-modal="true" aria-labelledby="consent-title">
    <h2 id="consent-title">Cookies, and what we do with them</h2>
    <p>We use cookies to remember what you have read and, if you allow it, to count visits. You can change your mind at any time.</p>
    <div class="choices"><button type="button" class="primary" data-choice="all">Accept all</button><button type="button" data-choice="none">Reject all</button><button type="button" data-choice="settings">Settings</button></div>
  </div>`;
  layer.addEventListener('click', (event) => {
    const choice = event.target.dataset?.choice;
    if (!choice) return;
    if (choice === 'settings') {
      layer.querySelector('p').textContent = 'Necessary cookies are always on. There is one optional kind: statistics.';
      event.target.remove();
      return;
    }
    document.cookie = `consent=${choice}; path=/; max-age=31536000; samesite=lax`;
    document.documentElement.style.overflow = '';
    layer.remove();
  });
  document.documentElement.style.overflow = 'hidden';
  document.body.append(layer);
}
