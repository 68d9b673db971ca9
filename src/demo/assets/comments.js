// Sends the reply without leaving the page and puts it below the others.
const form = document.getElementById('reply');
const error = document.getElementById('reply-error');
const done = document.getElementById('reply-done');

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = form.querySelector('button');
  const { comment, author, email, url } = form.elements;
  error.hidden = done.hidden = true;
  button.disabled = true;
  button.textContent = 'Sending…';
  try {
    const answer = await fetch(form.dataset.endpoint, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ comment: comment.value, author: author.value, email: email.value, url: url.value, nonce: form.dataset.token }),
    });
    const result = await answer.json();
    if (!answer.ok) throw new Error(result.error);
    append(result.id, author.value, comment.value);
    form.reset();
    done.textContent = 'Thank you. Your reply is online.';
    done.hidden = false;
  } catch (problem) {
    error.textContent = problem.message;
    error.hidden = false;
  } finally {
    button.disabled = false;
    button.textContent = 'Send reply';
  }
});

function append(id, author, text) {
  const entry = document.createElement('li');
  entry.className = 'comment';
  entry.id = `comment-${id}`;
  entry.innerHTML = '<div class="comment-meta"><span class="avatar" aria-hidden="true"></span><span class="comment-author"></span><time>just now</time></div><div class="comment-content"><p></p></div>';
  entry.querySelector('.avatar').textContent = (author.trim()[0] ?? '?').toUpperCase();
  entry.querySelector('.comment-author').textContent = author.trim();
  const body = entry.querySelector('p');
  body.textContent = text.trim();
  body.style.whiteSpace = 'pre-line';
  document.querySelector('.comment-list').append(entry);
}
